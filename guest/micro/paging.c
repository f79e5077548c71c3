#include "paging.h"

#include "kernel.h"

enum { POOL = 48 << 20 };

pte *kernel_root;

static int top; /* the level of a root */
static int asids;
static u8 *next_free;

extern u8 free_start[];

static void *take(u64 size, u64 alignment)
{
    u8 *at = (u8 *)(((u64)next_free + alignment - 1) & ~(alignment - 1));
    if (at + size > free_start + POOL) {
        say("micro: out of memory\n");
        power_off();
    }
    next_free = at + size;
    for (u64 *p = (u64 *)at; p < (u64 *)next_free; p++)
        *p = 0;
    return at;
}

void *new_page(void) { return take(PAGE, PAGE); }

void *new_megapage(void) { return take(MEGA, MEGA); }

pte *entry(pte *root, u64 va, int level)
{
    pte *table = root;
    for (int at = top; at > level; at--) {
        pte *e = &table[va >> (12 + 9 * at) & (ENTRIES - 1)];
        if (!(*e & V))
            *e = link(new_page());
        table = (pte *)(*e >> 10 << 12);
    }
    return &table[va >> (12 + 9 * level) & (ENTRIES - 1)];
}

pte *new_root(void)
{
    pte *root = new_page();
    /* RAM, from 2 GiB on, where we run.  Only the firmware uses devices. */
    *entry(root, 2 * GIGA, 2) = leaf((void *)(2 * GIGA), V | R | W | X | A | D | G);
    return root;
}

u64 asid(u64 n) { return asids ? n : 0; }

u64 satp_of(pte *root, u64 id)
{
    return (u64)(6 + top) << 60 | id << 44 | (u64)root >> 12;
}

void switch_to(pte *root, u64 id)
{
    write_csr(satp, satp_of(root, id));
    if (!asids)
        fence_all();
}

void paging_on(int levels, int with_asids)
{
    next_free = free_start;
    top = levels - 1;
    asids = with_asids;
    kernel_root = new_root();
    write_csr(satp, satp_of(kernel_root, 0));
    if (read_csr(satp) != satp_of(kernel_root, 0)) {
        say("micro: this hart does not support the paging mode\n");
        power_off();
    }
    fence_all();
}
