/*
 * Follows which pages of guest RAM are live page tables, and what they hold, by the rules of
 * docs/architecture.md, "Which pages are live tables".  cosim/capture/tables.py does the same in
 * Python; the tests hold the two against each other.
 */
#ifndef COSIM_TABLES_H
#define COSIM_TABLES_H

#include "guest.h"
#include "stream.h"

/* What the tables call back. */
struct tables_hooks {
    /* A page became live: from now on every store to it is looked at. */
    void (*grown)(void);
    /* Return true if the page is the root in `satp` of any hart. */
    bool (*is_loaded_root)(uint64_t page);
    /* Return true if the MMU of some hart may set A and D. */
    bool (*mmu_sets_ad)(void);
    /* The entry of a table that is live at these levels (a bit set) was written; `old` is its value
     * before. */
    void (*entry_written)(uint64_t entry, unsigned levels, uint64_t old);
};
void tables_open(struct tables_hooks hooks);
/* Return true if the page of `pa` is live; `pa` may be anything. */
bool tables_live(uint64_t pa);

/* Rule 1 and 5: a root was loaded into `satp` of a hart. */
void tables_load_root(uint64_t satp, const struct stamp *at);

/* One page's part of a store: `length` bytes at `pa`, of a store of `size` bytes in all. */
struct part {
    uint64_t pa;
    unsigned length;
};
/* Rules 3 to 5: a store in `parts` pages has been executed; RAM has its result. */
void tables_store(const struct part *part, int parts, unsigned size, enum pte_op op,
                  const struct stamp *at);

/* Return true if an entry of a live table in `parts` has changed since events have shown it. */
bool tables_differ(const struct part *part, int parts);

/* A vector store that reached a live table has been executed: every entry that has changed is its
 * work, unless the MMU may have done it.  It counts as a store of more than one entry (rule 5 a). */
void tables_vector_store(const struct stamp *at);
/* Look for entries in which the MMU has set A or D: each is an event. */
void tables_hardware_updates(const struct stamp *at);
/* Look for other entries that differ from their copies: a device wrote them, or a store was missed.
 * Each is an event. */
void tables_device_writes(const struct stamp *at);

struct audit {
    uint64_t pages, entries, differ;
    uint64_t hardware_ad; /* entries that tables_hardware_updates found so far */
};
/* Compare every live page's copy with RAM. */
struct audit tables_audit(void);

#endif
