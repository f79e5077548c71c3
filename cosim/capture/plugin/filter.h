/*
 * Which accesses are worth an event, and which stores need a look at all (those by which no page
 * that might be a live table is written; the answer rests on the same rule).
 *
 * The filter has one direct-mapped array of slots for data and one for instructions, per hart,
 * indexed by the low bits of the virtual page number.  An access is dropped if its slot holds the
 * same page with the same privilege, SUM and MXR (a store: if it holds that the page was stored
 * to) and nothing since could have changed what any model answers:
 *   - a SATP_WRITE, or a FENCE that names no address, of any hart, empties every slot; a FENCE that
 *     names one empties the slots of pages that the entry which translates it maps;
 *   - a PTE_WRITE empties every slot whose page is translated through the table written, at
 *     whatever level, whether or not the value changed;
 *   - a page is not remembered while one of the entries that translate it, valid at the time, was
 *     hit by a PTE_WRITE and not fenced since: by a SATP_WRITE, by an sfence.vma without operands,
 *     or, a leaf entry, by an sfence.vma with an address in it and no ASID or the current one (not
 *     one with an ASID where the entry is global).  Neither is a page that RAM's tables do not
 *     translate as QEMU did.
 * An access that faults is never dropped, for a model may have its page in a TLB all the same; nor
 * is one whose privilege is not the running one's (MPRV,
 * hlv), or one with SUM and MXR, which a hypervisor may have to make for the guest each time: these
 * empty their slot.
 *
 * Some fetches never get here.  QEMU runs the same generated code under every virtual address of a
 * page, and to ask it for the pc costs more than all the rest, so `on_fetch` goes by the physical page:
 * a block in the page, with the privilege and SUM, of the hart's block before is not looked at unless
 * a SATP_WRITE, a FENCE, a PTE_WRITE or a fault came between; and of one in another page it is assumed,
 * with more than one slot, that it runs where that page was last fetched from, if a slot still holds
 * that.  So of a page of code that is mapped executable more than once in one address space, the second
 * mapping is not fetched from while a slot holds the first one (with one slot: not by a jump straight
 * from one into the other), and the accesses made from there have a pc in the first.
 */
#ifndef COSIM_FILTER_H
#define COSIM_FILTER_H

#include "event.h"
#include "guest.h"

/* What besides the address decides a translation, as far as the filter caches. */
enum class { CLASS_U, CLASS_S, CLASS_SUM, CLASSES, CLASS_M = CLASSES, CLASS_OTHER };

enum { FAST_SLOTS = 512, FAST_MISS = 0xff8 };

/*
 * The check of every load and store, by hart and virtual page number & fast_mask: [class][kind] is the
 * address of the page if an access that does not cross its end needs no look.  A slot is one line of
 * the host's cache, since they are filled and emptied whole.
 */
struct fast_slot {
    _Alignas(64) uint64_t page[CLASSES][2];
};
extern struct fast_slot fast[MAX_HARTS][FAST_SLOTS];
extern uint64_t fast_mask;

static inline bool fast_hit(unsigned hart, enum class class, enum access kind, uint64_t va)
{
    return va - fast[hart][va >> PAGE_BITS & fast_mask].page[class][kind] <= FAST_MISS;
}

/* `slots`: a power of two up to FAST_SLOTS; 0: no page is ever held, so every access passes. */
void filter_open(unsigned slots, unsigned harts);

/* Whether an access becomes an event; if so, its page is remembered.  `pa` is QEMU's. */
bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp);
/* Whether a fetch from `va` would not pass, and that page is translated to `page` (its number within
 * RAM, plus 1). */
bool filter_holds_code(unsigned hart, enum class class, bool mxr, uint64_t va, uint32_t page);
/* A store to the page of `va`, which the filter was asked about, hit no live table: if the page is
 * remembered, let the next ones pass by unseen. */
void filter_allow_stores(unsigned hart, enum class class, bool mxr, uint64_t va);
/* An access to `va` faulted: it is an event, and its slot is emptied. */
void filter_faulted(unsigned hart, enum access kind, uint64_t va);
/* A page became a live table. */
void filter_tables_grew(void);
/* A SATP_WRITE, or a fence of everything, was executed. */
void filter_fenced(void);
/* A fence of the address `va` in the space of `satp` was executed; `spares_global`: but not of
 * global mappings. */
void filter_fenced_va(uint64_t va, bool spares_global, uint64_t satp);
/* A PTE_WRITE to the entry at `entry`, in a table live at the levels of the bit set. */
void filter_pte_written(uint64_t entry, unsigned levels, uint64_t old);
/* Something else that translations depend on changed. */
void filter_forget(void);

#endif
