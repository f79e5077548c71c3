/* Scenarios that link and unlink tables and change roots. */
#include "scenarios.h"

/* Split a 2 MiB leaf into a table and merge it again; map and unmap a 1 GiB leaf. */
u64 run_superpage(void)
{
    u64 va = PLACE(5);
    u8 *frame = new_megapage();
    for (u64 i = 0; i < ENTRIES; i++)
        *(u64 *)(frame + i * PAGE) = i;
    pte *e = entry(kernel_root, va, 1);
    *e = leaf(frame, RW);
    fence_va(va);
    check(load(va) == 0 && load(va + 511 * PAGE) == 511, "a 2 MiB leaf maps its pages");

    pte *table = new_page();
    for (u64 i = 0; i < ENTRIES; i++)
        table[i] = leaf(frame + i * PAGE, RW);
    *e = 0;
    fence_va(va);
    *e = link(table);
    fence_all();
    check(load(va) == 0 && load(va + 511 * PAGE) == 511, "the split pages are the same");
    table[7] = leaf(frame + 7 * PAGE, RO);
    fence_va(va + 7 * PAGE);
    check(probe_store(va + 7 * PAGE, 0) == STORE_FAULT, "one of them is read-only");
    check(probe_store(va + 8 * PAGE, 8) == 0, "its neighbour is not");

    *e = 0;
    fence_all();
    *e = leaf(frame, RW);
    fence_va(va);
    check(probe_store(va + 7 * PAGE, 7) == 0 && load(va + 8 * PAGE) == 8, "merged again");

    u64 giga = PLACE(6);
    *entry(kernel_root, giga, 2) = leaf((void *)(2 * GIGA), RW);
    fence_va(giga);
    check(load(giga + ((u64)frame - 2 * GIGA) + 9 * PAGE) == 9, "a 1 GiB leaf maps RAM");
    *entry(kernel_root, giga, 2) = 0;
    fence_va(giga);
    check(probe_load(giga) == LOAD_FAULT, "and is gone");
    return 7;
}

/* Unlink a table, use its page for data, and make it a table again. */
u64 run_unlink(void)
{
    u64 va = PLACE(7), data = va + MEGA;
    pte *directory = entry(kernel_root, va, 1), *table = new_page();
    for (u64 i = 0; i < 4; i++)
        table[i] = leaf(frame_with(400 + i), RW);
    *directory = link(table);
    fence_all();
    for (u64 i = 0; i < 4; i++)
        check(load(va + i * PAGE) == 400 + i, "linked");

    *directory = 0;
    fence_all();
    check(probe_load(va) == LOAD_FAULT, "unlinked");
    *entry(kernel_root, data, 0) = leaf((void *)table, RW);
    fence_va(data);
    for (u64 i = 0; i < ENTRIES; i += 8)
        store(data + i * 8, ~i);
    for (u64 i = 0; i < ENTRIES; i += 8)
        check(table[i] == ~i, "the page holds data");
    *entry(kernel_root, data, 0) = 0;
    fence_va(data);

    for (u64 i = 0; i < ENTRIES; i++)
        table[i] = 0;
    table[0] = leaf(frame_with(500), RW);
    *directory = link(table);
    fence_all();
    check(load(va) == 500 && probe_load(va + PAGE) == LOAD_FAULT, "a table again");
    return 4;
}

/* Two address spaces with different ASIDs; each is edited while the other is active. */
u64 run_asid(void)
{
    enum { PAGES = 4, ROUNDS = 6 };
    u64 va = PLACE(8);
    pte *roots[2] = {new_root(), new_root()};
    for (u64 r = 0; r < 2; r++)
        for (u64 i = 0; i < PAGES; i++)
            *entry(roots[r], va + i * PAGE, 0) = leaf(frame_with(600 + 10 * r + i), RW);
    fence_all();
    for (u64 round = 0; round < ROUNDS; round++) {
        u64 r = round % 2;
        switch_to(roots[r], asid(1 + r));
        for (u64 i = 0; i < PAGES; i++)
            check(load(va + i * PAGE) == 600 + 10 * r + i, "its own frames");
    }
    /* The second space is active: change the first one, page by page, then all of it. */
    for (u64 i = 0; i < PAGES; i++) {
        *entry(roots[0], va + i * PAGE, 0) = leaf(frame_with(700 + i), RW);
        fence_va_asid(va + i * PAGE, asid(1));
        check(load(va + i * PAGE) == 610 + i, "the other space is unchanged");
    }
    switch_to(roots[0], asid(1));
    for (u64 i = 0; i < PAGES; i++)
        check(load(va + i * PAGE) == 700 + i, "fenced by address and ASID");
    for (u64 i = 0; i < PAGES; i++)
        *entry(roots[1], va + i * PAGE, 0) = leaf(frame_with(800 + i), RW);
    fence_asid(asid(2));
    switch_to(roots[1], asid(2));
    for (u64 i = 0; i < PAGES; i++)
        check(load(va + i * PAGE) == 800 + i, "fenced by ASID");
    switch_to(kernel_root, 0);
    return ROUNDS + 3;
}

/* Two roots share a table with a global page.  A fence of one ASID does not cover that page. */
u64 run_global(void)
{
    u64 va = PLACE(9);
    pte *roots[2] = {new_root(), new_root()};
    void *frames[2] = {frame_with(900), frame_with(901)};
    pte *e = entry(roots[0], va, 0);
    *entry(roots[1], va, 2) = *entry(roots[0], va, 2);
    *e = leaf(frames[0], RW | G);
    fence_all();
    for (u64 r = 0; r < 2; r++) {
        switch_to(roots[r], asid(1 + r));
        check(load(va) == 900, "both spaces see the page");
    }
    *e = leaf(frames[1], RW | G);
    fence_va_asid(va, asid(2));
    u64 seen = load(va);
    check(seen == 900 || seen == 901, "one of the two frames");
    fence_va(va);
    for (u64 r = 0; r < 2; r++) {
        switch_to(roots[r], asid(1 + r));
        check(load(va) == 901, "a fence of every ASID covers it");
    }
    switch_to(kernel_root, 0);
    return 6;
}

/* Switch paging off and on again. */
u64 run_bare(void)
{
    u64 va = PLACE(10), frame = (u64)frame_with(1000);
    *entry(kernel_root, va, 0) = leaf((void *)frame, RW);
    fence_va(va);
    check(load(va) == 1000, "mapped");
    write_csr(satp, 0);
    fence_all();
    check(load(frame) == 1000, "addresses are physical");
    store(frame, 1001);
    switch_to(kernel_root, 0);
    fence_all();
    check(load(va) == 1001, "mapped as before");
    return 2;
}
