/*
 * Which accesses are worth an event, and which stores need a look at all (those by which no page
 * that might be a live table is written; the answer rests on the same rule).
 *
 * The filter has one direct-mapped array of slots for data and one for instructions, per hart,
 * indexed by the low bits of the virtual page number.  An access is dropped if its slot holds the
 * same page with the same privilege, SUM and MXR (a store: if it holds that the page was stored
 * to) and nothing since could have changed what any model answers:
 *   - a FENCE or SATP_WRITE, of any hart and form, empties every slot;
 *   - a PTE_WRITE empties every slot whose page is translated through the table written, at
 *     whatever level, whether or not the value changed;
 *   - while one of the entries that translate a page was valid when a PTE_WRITE since the last
 *     FENCE or SATP_WRITE hit it, the page is not remembered at all, and neither is a page that
 *     RAM's tables do not translate as QEMU did.
 * An access that faults is never dropped.
 */
#ifndef COSIM_FILTER_H
#define COSIM_FILTER_H

#include "event.h"
#include "guest.h"

/* What besides the address decides a translation, as far as the filter caches. */
enum class { CLASS_U, CLASS_S, CLASS_SUM, CLASSES, CLASS_M = CLASSES, CLASS_OTHER };

enum { FAST_SLOTS = 512, FAST_MISS = 0xff8 };

/*
 * The check of every load and store: [hart][class][kind][virtual page number & fast_mask] is the
 * address of the page if an access that does not cross its end needs no look.
 */
extern uint64_t fast[MAX_HARTS][CLASSES][2][FAST_SLOTS];
extern uint64_t fast_mask;

static inline bool fast_hit(unsigned hart, enum class class, enum access kind, uint64_t va)
{
    return va - fast[hart][class][kind][va >> PAGE_BITS & fast_mask] <= FAST_MISS;
}

/* `slots`: a power of two up to FAST_SLOTS. */
void filter_open(unsigned slots, unsigned harts);

/* Whether an access becomes an event; if so, its page is remembered.  `pa` is QEMU's. */
bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp);
/* A store to the page of `va`, which the filter was asked about, hit no live table: if the page is
 * remembered, let the next ones pass by unseen. */
void filter_allow_stores(unsigned hart, enum class class, bool mxr, uint64_t va);
/* A page became a live table. */
void filter_tables_grew(void);
/* A FENCE or SATP_WRITE was executed. */
void filter_fenced(void);
/* A PTE_WRITE to the entry at `entry`, in a table live at the levels of the bit set. */
void filter_pte_written(uint64_t entry, unsigned levels, uint64_t old);
/* Something else that translations depend on changed (MXR). */
void filter_forget(void);

#endif
