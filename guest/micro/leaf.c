/* Scenarios that change entries of leaf tables. */
#include "scenarios.h"

enum { PAGES = 16 };

/* A hart may cache that an entry was invalid: fence and try again. */
static int spurious(u64 cause, u64 va)
{
    (void)cause;
    fence_va(va);
    return (*entry(kernel_root, va, 0) & V) != 0;
}

/* Map pages, map other frames, unmap them, and map them again without a fence. */
u64 run_map(void)
{
    u64 va = PLACE(0), steps = 0;
    void *frames[PAGES];
    for (u64 i = 0; i < PAGES; i++, steps++) {
        frames[i] = frame_with(100 + i);
        *entry(kernel_root, va + i * PAGE, 0) = leaf(frames[i], RW);
        fence_va(va + i * PAGE);
        check(load(va + i * PAGE) == 100 + i, "a mapped page shows its frame");
    }
    for (u64 i = 0; i < PAGES; i++, steps++) {
        *entry(kernel_root, va + i * PAGE, 0) = leaf(frames[PAGES - 1 - i], RW);
        fence_va(va + i * PAGE);
        check(load(va + i * PAGE) == 100 + PAGES - 1 - i, "a remapped page shows the new frame");
    }
    for (u64 i = 0; i < PAGES; i++, steps++) {
        *entry(kernel_root, va + i * PAGE, 0) = 0;
        fence_va(va + i * PAGE);
        check(probe_load(va + i * PAGE) == LOAD_FAULT, "an unmapped page faults");
    }
    fault_handler = spurious;
    for (u64 i = 0; i < PAGES; i++, steps++) {
        *entry(kernel_root, va + i * PAGE, 0) = leaf(frames[i], RW);
        check(load(va + i * PAGE) == 100 + i, "an entry made valid needs no fence");
    }
    fault_handler = 0;
    return steps;
}

/* Take permissions away and give them back. */
u64 run_protect(void)
{
    u64 va = PLACE(1), steps = 0;
    for (u64 i = 0; i < PAGES; i++, steps++) {
        u64 page = va + i * PAGE;
        u32 *frame = frame_with(0x00008067); /* ret */
        asm volatile("fence.i");
        pte *e = entry(kernel_root, page, 0);
        *e = leaf(frame, RW);
        fence_va(page);
        check(probe_fetch(page) == FETCH_FAULT, "a page without X is not executed");
        *e = leaf(frame, RX);
        fence_va(page);
        check(probe_fetch(page) == 0, "a page with X is executed");
        check(probe_store(page, 0) == STORE_FAULT, "a page without W is not written");
        *e = leaf(frame, RW);
        fence_va(page);
        check(probe_store(page, i) == 0 && load(page) == i, "a page with W is written");
    }
    return steps;
}

/* Change many entries before one fence of everything or of one ASID. */
u64 run_bulk(void)
{
    enum { MANY = 96 };
    u64 va = PLACE(2);
    for (int round = 0; round < 2; round++) {
        for (u64 i = 0; i < MANY; i++)
            *entry(kernel_root, va + i * PAGE, 0) = leaf(frame_with(i), RW);
        fence_all();
        for (u64 i = 0; i < MANY; i++)
            check(load(va + i * PAGE) == i, "mapped");
        for (u64 i = 0; i < MANY; i++)
            *entry(kernel_root, va + i * PAGE, 0) = 0;
        if (round)
            fence_asid(0);
        else
            fence_all();
        for (u64 i = 0; i < MANY; i++)
            check(probe_load(va + i * PAGE) == LOAD_FAULT, "unmapped");
    }
    return 2 * 2 * MANY;
}

/* Write a table page through a second virtual address. */
u64 run_alias(void)
{
    u64 va = PLACE(3), window = va + MEGA, steps = 0;
    pte *first = entry(kernel_root, va, 0);
    *entry(kernel_root, window, 0) = leaf((void *)((u64)first & ~(PAGE - 1UL)), RW);
    fence_va(window);
    volatile u64 *alias = (volatile u64 *)window;
    for (u64 i = 0; i < PAGES; i++, steps++) {
        alias[i] = leaf(frame_with(300 + i), RW);
        fence_va(va + i * PAGE);
        check(load(va + i * PAGE) == 300 + i, "a store through the alias maps a page");
        check(first[i] == alias[i], "both addresses show one entry");
    }
    return steps;
}

/* Use changes before their fence: the guest must read one of the two frames and nothing else. */
u64 run_forgotten(void)
{
    u64 va = PLACE(4), old = 0, steps = 0;
    for (u64 i = 0; i < PAGES; i++, steps++) {
        u64 page = va + i * PAGE;
        pte *e = entry(kernel_root, page, 0);
        void *before = frame_with(1), *after = frame_with(2);
        *e = leaf(before, RW);
        fence_va(page);
        check(load(page) == 1, "before the change");
        *e = leaf(after, RW);
        u64 seen = load(page);
        check(seen == 1 || seen == 2, "one of the two frames");
        old += seen == 1;
        fence_va(page);
        check(load(page) == 2, "after the fence");
        *e = leaf(after, RO);
        u64 cause = probe_store(page, 2);
        check(cause == 0 || cause == STORE_FAULT, "written or refused");
        fence_va(page);
        check(probe_store(page, 2) == STORE_FAULT, "refused after the fence");
    }
    say("micro: forgotten read the old frame %d of %d times\n", old, steps);
    return steps;
}
