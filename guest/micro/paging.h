/* Page tables of Sv39, Sv48 and Sv57 in an identity-mapped kernel. */
#ifndef PAGING_H
#define PAGING_H

#include "riscv.h"

enum {
    V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128,
    RO = V | R | A, RW = V | R | W | A | D, RX = V | R | X | A,
};

enum { PAGE = 4096, MEGA = 2 << 20, ENTRIES = 512 };
#define GIGA (1UL << 30)

typedef volatile u64 pte;

/* The root that a scenario uses if it does not make one; its ASID is 0. */
extern pte *kernel_root;

/* Choose the mode by its LEVELS (3, 4 or 5), build kernel_root, switch paging on. */
void paging_on(int levels, int with_asids);

/* Return a zeroed page, which is never freed.  Its physical address is its pointer. */
void *new_page(void);
/* Return 2 MiB of zeroed memory, aligned to 2 MiB. */
void *new_megapage(void);

/* Return a new root that maps the kernel as kernel_root does, and nothing else. */
pte *new_root(void);

/* Return the entry for VA at LEVEL (0: 4 KiB) below ROOT; make the tables on the way. */
pte *entry(pte *root, u64 va, int level);

static inline u64 leaf(const volatile void *frame, u64 flags)
{
    return (u64)frame >> 12 << 10 | flags;
}
static inline u64 link(const volatile void *table) { return (u64)table >> 12 << 10 | V; }

/* Return N, or 0 if the run does not use ASIDs. */
u64 asid(u64 n);
/* Return the satp for ROOT and the ASID ID. */
u64 satp_of(pte *root, u64 id);
/* Load ROOT.  Without ASIDs also fence everything, as such a kernel must. */
void switch_to(pte *root, u64 id);

#endif
