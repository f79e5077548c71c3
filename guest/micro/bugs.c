/* Scenarios with a seeded bug, a fence that is missing or wrong, and their repaired twins.

   QEMU runs both alike.  `cosim check` must find each bug and nothing in the twins.  An access that
   depends on the fence may come to the old or to the new translation, so nothing is checked. */
#include "scenarios.h"

#define alone __attribute__((noipa)) static

enum { SPACE = 5, OTHER = 6 }; /* ASIDs */

/* Map a page at VA, use it, return its entry. */
static pte *used_page(pte *root, u64 va, u64 value)
{
    pte *e = entry(root, va, 0);
    *e = leaf(frame_with(value), RW);
    fence_va(va);
    store(va, load(va) + 1);
    return e;
}

alone u64 unmap(u64 va, int fenced)
{
    pte *e = used_page(kernel_root, va, 1);
    *e = 0;
    if (fenced)
        fence_va(va);
    return probe_load(va);
}
u64 run_bug_unmap(void) { return unmap(PLACE(20), 0), 1; }
u64 run_fixed_unmap(void) { return unmap(PLACE(20), 1), 1; }

alone u64 write_protect(u64 va, int fenced)
{
    pte *e = used_page(kernel_root, va, 2);
    *e &= ~(u64)W;
    if (fenced)
        fence_va(va);
    return probe_store(va, 3);
}
u64 run_bug_protect(void) { return write_protect(PLACE(21), 0), 1; }
u64 run_fixed_protect(void) { return write_protect(PLACE(21), 1), 1; }

alone u64 move_frame(u64 va, u64 fenced)
{
    pte *e = used_page(kernel_root, va, 4);
    *e = leaf(frame_with(5), RW);
    fence_va(fenced);
    return probe_load(va);
}
u64 run_bug_address(void) { return move_frame(PLACE(22), PLACE(22) + PAGE), 1; }
u64 run_fixed_address(void) { return move_frame(PLACE(22), PLACE(22)), 1; }

alone u64 move_in_space(u64 va, u64 fenced)
{
    pte *root = new_root();
    write_csr(satp, satp_of(root, SPACE));
    fence_asid(SPACE);
    pte *e = used_page(root, va, 6);
    *e = leaf(frame_with(7), RW);
    fence_va_asid(va, fenced);
    u64 cause = probe_load(va);
    write_csr(satp, satp_of(kernel_root, 0));
    fence_all();
    return cause;
}
u64 run_bug_asid(void) { return move_in_space(PLACE(23), OTHER), 1; }
u64 run_fixed_asid(void) { return move_in_space(PLACE(23), SPACE), 1; }

alone u64 replace_table(u64 va, int everything)
{
    used_page(kernel_root, va, 8);
    pte *table = new_page();
    table[0] = leaf(frame_with(9), RW);
    *entry(kernel_root, va, 1) = link(table);
    if (everything)
        fence_all();
    else
        fence_va(va); /* leaves the pointer to the old table */
    return probe_load(va);
}
u64 run_bug_link(void) { return replace_table(PLACE(24), 0), 1; }
u64 run_fixed_link(void) { return replace_table(PLACE(24), 1), 1; }

alone u64 change_order(u64 va, int store_first)
{
    pte *e = used_page(kernel_root, va, 10);
    u64 next = leaf(frame_with(11), RW);
    if (store_first) {
        *e = next;
        fence_va(va);
    } else {
        fence_va(va);
        *e = next;
    }
    return probe_load(va);
}
u64 run_bug_order(void) { return change_order(PLACE(25), 0), 1; }
u64 run_fixed_order(void) { return change_order(PLACE(25), 1), 1; }

/* As change_order, with the instructions of Svinval. */
alone u64 order_svinval(u64 va, int store_first)
{
    pte *e = used_page(kernel_root, va, 17);
    u64 next = leaf(frame_with(18), RW);
    if (store_first) {
        *e = next;
        sfence_w_inval();
    } else {
        sfence_w_inval();
        *e = next;
    }
    sinval_va_asid(va, 0);
    sfence_inval_ir();
    return probe_load(va);
}
u64 run_bug_svinval_order(void) { return order_svinval(PLACE(29), 0), 1; }
u64 run_fixed_svinval_order(void) { return order_svinval(PLACE(29), 1), 1; }

alone u64 reuse_asid(u64 va, int fenced)
{
    pte *first = new_root(), *second = new_root();
    *entry(second, va, 0) = leaf(frame_with(13), RW);
    write_csr(satp, satp_of(first, SPACE));
    fence_asid(SPACE);
    used_page(first, va, 12);
    write_csr(satp, satp_of(second, SPACE));
    if (fenced)
        fence_asid(SPACE);
    u64 cause = probe_load(va);
    write_csr(satp, satp_of(kernel_root, 0));
    fence_all();
    return cause;
}
u64 run_bug_reuse(void) { return reuse_asid(PLACE(26), 0), 1; }
u64 run_fixed_reuse(void) { return reuse_asid(PLACE(26), 1), 1; }

alone void free_table(u64 va, int fenced)
{
    used_page(kernel_root, va, 14);
    pte *directory = entry(kernel_root, va, 1);
    u64 *page = (u64 *)(*directory >> 10 << 12);
    *directory = 0;
    if (fenced)
        fence_all();
    for (u64 i = 0; i < ENTRIES; i++)
        page[i] = ~i; /* the page holds data now */
    fence_all();
}
u64 run_bug_free(void) { return free_table(PLACE(27), 0), 1; }
u64 run_fixed_free(void) { return free_table(PLACE(27), 1), 1; }

/* Find out which pages are written: without the fence, a store may leave D clear. */
alone u64 clear_dirty(u64 va, int fenced)
{
    pte *e = used_page(kernel_root, va, 15);
    *e &= ~(u64)D;
    if (fenced)
        fence_va(va);
    return probe_store(va, 16);
}
u64 run_bug_dirty(void) { return clear_dirty(PLACE(28), 0), 1; }
u64 run_fixed_dirty(void) { return clear_dirty(PLACE(28), 1), 1; }
