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

/* The root that every scenario works in unless it makes its own; ASID 0. */
extern pte *kernel_root;

/* Choose the mode (levels 3, 4, 5), build kernel_root, switch paging on. */
void paging_on(int levels, int with_asids);

/* A zeroed page, never given back; physical address == pointer. */
void *new_page(void);
/* PAGES zeroed pages in a row, aligned to 2 MiB. */
void *new_megapage(void);

/* A root that maps the kernel as kernel_root does, and nothing else. */
pte *new_root(void);

/* The entry for VA at LEVEL (0 = 4 KiB leaf) below ROOT; tables on the way are made. */
pte *entry(pte *root, u64 va, int level);

static inline u64 leaf(const volatile void *frame, u64 flags)
{
    return (u64)frame >> 12 << 10 | flags;
}
static inline u64 link(const volatile void *table) { return (u64)table >> 12 << 10 | V; }

/* N, or 0 where the run goes without ASIDs. */
u64 asid(u64 n);
/* satp for ROOT and ASID. */
u64 satp_of(pte *root, u64 id);
/* Load ROOT; without ASIDs everything is fenced, as such a kernel must. */
void switch_to(pte *root, u64 id);

#endif
