/* The list of scenarios; each file of scenario_*.c holds some. */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include "kernel.h"
#include "paging.h"

struct scenario {
    const char *name;
    int in_all;
    void (*prepare)(void); /* before the mark */
    u64 (*run)(void);      /* returns how many steps it made */
    const char *bug;       /* what is wrong on purpose, or 0 */
    int harts;             /* that it needs */
};

/* The last entry has no name. */
extern const struct scenario scenarios[];

/* Where scenario number N works: each has one gigabyte of virtual addresses. */
#define PLACE(n) ((16UL + (n)) << 30)

static inline u64 load(u64 va) { return *(volatile u64 *)va; }
static inline void store(u64 va, u64 value) { *(volatile u64 *)va = value; }

/* Return a new page whose first word is VALUE. */
static inline void *frame_with(u64 value)
{
    volatile u64 *frame = new_page();
    *frame = value;
    return (void *)frame;
}

/* leaf.c: entries of leaf tables */
u64 run_map(void);
u64 run_protect(void);
u64 run_bulk(void);
u64 run_alias(void);
u64 run_forgotten(void);
/* table.c: tables linked and unlinked, roots */
u64 run_superpage(void);
u64 run_unlink(void);
u64 run_asid(void);
u64 run_global(void);
u64 run_bare(void);
/* stores.c: every kind of store that can change an entry, every fence */
u64 run_stores(void);
u64 run_cbo_zero(void);
u64 run_misaligned(void);
u64 run_svinval(void);
/* faults.c */
u64 run_fault(void);
u64 run_user(void);
/* bugs.c: fences that are missing or wrong, and their repaired twins */
u64 run_bug_unmap(void);
u64 run_fixed_unmap(void);
u64 run_bug_protect(void);
u64 run_fixed_protect(void);
u64 run_bug_address(void);
u64 run_fixed_address(void);
u64 run_bug_asid(void);
u64 run_fixed_asid(void);
u64 run_bug_link(void);
u64 run_fixed_link(void);
u64 run_bug_order(void);
u64 run_fixed_order(void);
u64 run_bug_svinval_order(void);
u64 run_fixed_svinval_order(void);
u64 run_bug_reuse(void);
u64 run_fixed_reuse(void);
u64 run_bug_free(void);
u64 run_fixed_free(void);
u64 run_bug_dirty(void);
u64 run_fixed_dirty(void);
/* harts.c: a fence on the wrong hart, and its repaired twin */
u64 run_bug_remote(void);
u64 run_fixed_remote(void);
/* bench.c */
void prepare_bench(void);
u64 run_bench(void);

#endif
