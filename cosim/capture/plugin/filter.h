/*
 * Decides which accesses become events, and which stores need no look because they cannot write a
 * live table.
 *
 * The filter has one direct-mapped array of slots for data and one for instructions, per hart,
 * indexed by the low bits of the virtual page number.  An access is dropped if its slot holds the
 * same page with the same privilege, SUM and MXR (a store: if it also holds that the page was
 * stored to), and nothing since then could have changed the answer of a model:
 *   - A SATP_WRITE of any hart, or a FENCE that names no address, empties every slot.  A FENCE that
 *     names an address empties the slots of the pages that its entry maps.
 *   - A PTE_WRITE empties every slot whose page is translated through the table written, at any
 *     level, even if the value did not change.
 *   - A page is not held while a PTE_WRITE to one of the entries that translate it (valid at that
 *     time) is not fenced.  What fences it: a SATP_WRITE; an sfence.vma without operands; for a
 *     leaf entry, an sfence.vma with an address in it and either no ASID or the current one (with
 *     an ASID only if the entry is not global).
 *   - A page is not held if the tables in RAM do not translate it as QEMU did.
 * Three kinds of access are never dropped, and empty their slot.  One that faults: a model may have
 * its page in a TLB all the same.  One whose privilege is not the running one's (MPRV, hlv).  One
 * with SUM and MXR: a hypervisor may have to make it for the guest each time.
 *
 * Some fetches are not looked at.  QEMU runs the same translated code under every virtual address
 * of a page, and asking it for the pc costs more than everything else, so fetches are told apart by
 * their physical page.  There are two cases:
 *   - A block in the same page, with the same privilege and SUM, as the hart's block before: it is
 *     not looked at unless a SATP_WRITE, a FENCE, a PTE_WRITE or a fault came between.
 *   - A block in another page, with more than one slot: it is assumed to run where that page was
 *     last fetched from, if a slot still holds that address.
 * So if a page of code is mapped executable twice in one address space, no fetch through the second
 * mapping is seen while a slot holds the first (with one slot: no jump straight from one into the
 * other), and accesses made from there have a pc in the first mapping.  This does not count if of the
 * first mapping only the second half of an instruction was fetched since its slot was empty.
 */
#ifndef COSIM_FILTER_H
#define COSIM_FILTER_H

#include "event.h"
#include "guest.h"

/* What decides a translation besides the address; the filter holds pages of the first CLASSES. */
enum class { CLASS_U, CLASS_S, CLASS_SUM, CLASSES, CLASS_M = CLASSES, CLASS_OTHER };

enum { FAST_SLOTS = 512, FAST_MISS = 0xff8 };

/*
 * The check of every load and store, by the low bits of the virtual page number.  [class][kind] is
 * the address of the page if accesses within it need no look.  A slot is one line of the host's
 * cache, because slots are filled and emptied whole.
 */
enum { FAST_SLOT_BITS = 6 };
struct fast_slot {
    _Alignas(1 << FAST_SLOT_BITS) uint64_t page[CLASSES][2];
};
_Static_assert(sizeof(struct fast_slot) == 1 << FAST_SLOT_BITS, "a slot is one line");
/* Of the running hart. */
extern struct fast_slot *fast;
/* Which bytes of that array there are: this check is made so often that each instruction counts. */
extern uint64_t fast_mask;

static inline bool fast_hit(enum class class, enum access kind, uint64_t va)
{
    uint64_t offset = va >> (PAGE_BITS - FAST_SLOT_BITS) & fast_mask;
    const struct fast_slot *slot = (const void *)((const char *)fast + offset);
    return va - slot->page[class][kind] <= FAST_MISS;
}

/*
 * The check of a fetch, by the number of the physical page modulo KNOWN_CODE.  If an entry has the
 * same `from`, a slot holds the page that is fetched from, at this virtual address.
 */
enum { KNOWN_CODE = 1024 };
struct known_code {
    uint64_t from; /* 0: none is known */
    uint64_t va;
};
/* Of the running hart. */
extern struct known_code *known_code;

/* `slots`: a power of two up to FAST_SLOTS; 0: no page is ever held, so every access passes. */
void filter_open(unsigned slots, unsigned harts);
/* From now on `hart` runs. */
void filter_take_turns(unsigned hart);

/* Return true if an access becomes an event; its page is then held.  `pa` is QEMU's. */
bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp);
/* The hart has fetched from `va`, and the filter was told.  `page` is the number of the physical page
 * within RAM, plus 1.  If a slot holds it, the next fetches with the same `from` need no look. */
void filter_know_code(unsigned hart, enum class class, bool mxr, uint64_t va, uint32_t page,
                      uint64_t from);
/* A store to the page of `va`, which the filter was told of, hit no live table.  If the page is
 * held, the next stores to it need no look. */
void filter_allow_stores(unsigned hart, enum class class, bool mxr, uint64_t va);
/* An access to `va` faulted: it is an event, and its slot is emptied. */
void filter_faulted(unsigned hart, enum access kind, uint64_t va);
/* A page became a live table. */
void filter_tables_grew(void);
/* A SATP_WRITE, or a fence of everything, was executed. */
void filter_fenced(void);
/* A fence of the address `va` in the space of `satp` was executed; `spares_global`: it leaves out
 * global mappings. */
void filter_fenced_va(uint64_t va, bool spares_global, uint64_t satp);
/* A PTE_WRITE to the entry at `entry`, in a table live at the levels of the bit set. */
void filter_pte_written(uint64_t entry, unsigned levels, uint64_t old);
/* Something else that translations depend on changed. */
void filter_forget(void);

#endif
