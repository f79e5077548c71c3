/* Scenarios in which the guest takes page faults. */
#include "scenarios.h"

static pte *e;

/* Set the entry to VALUE and fence it; then a load and a store must take these causes. */
static void expect(u64 page, u64 value, u64 on_load, u64 on_store, const char *what)
{
    *e = value;
    fence_va(page);
    check(probe_load(page) == on_load, what);
    check(probe_store(page, 0x00008067) == on_store, what);
}

/* Every kind of entry that must fault, and what sstatus.SUM and MXR allow. */
u64 run_fault(void)
{
    u64 page = PLACE(15);
    u32 *frame = frame_with(0x00008067); /* ret */
    e = entry(kernel_root, page, 0);

    expect(page, 0, LOAD_FAULT, STORE_FAULT, "invalid");
    check(probe_fetch(page) == FETCH_FAULT, "invalid, fetched");
    expect(page, leaf(frame, RO), 0, STORE_FAULT, "read-only");
    expect(page, leaf(frame, RW), 0, 0, "readable and writable");
    expect(page, leaf(frame, V | W | A | D), LOAD_FAULT, STORE_FAULT, "W without R is reserved");
    expect(page, link(frame), LOAD_FAULT, STORE_FAULT, "a link in a leaf table");
    expect(page, leaf(frame, RW) | 1UL << 58, LOAD_FAULT, STORE_FAULT, "a reserved bit");

    expect(page, leaf(frame, V | X | A), LOAD_FAULT, STORE_FAULT, "execute-only");
    set_csr(sstatus, SSTATUS_MXR);
    check(probe_load(page) == 0, "execute-only, with MXR");
    clear_csr(sstatus, SSTATUS_MXR);

    expect(page, leaf(frame, RW | U), LOAD_FAULT, STORE_FAULT, "a user page");
    set_csr(sstatus, SSTATUS_SUM);
    check(probe_load(page) == 0 && probe_store(page, 1) == 0, "a user page, with SUM");
    clear_csr(sstatus, SSTATUS_SUM);
    expect(page, leaf(frame, V | R | X | A | U), LOAD_FAULT, STORE_FAULT, "a user text page");
    check(probe_fetch(page) == FETCH_FAULT, "a user text page, fetched");

    /* With a clear accessed (dirty) bit there is a fault (Svade) or hardware sets it (Svadu). */
    *e = leaf(frame, V | R | W);
    fence_va(page);
    u64 cause = probe_load(page);
    check(cause == LOAD_FAULT || (cause == 0 && (*e & A)), "A=0, read");
    *e = leaf(frame, V | R | W | A);
    fence_va(page);
    cause = probe_store(page, 1);
    check(cause == STORE_FAULT || (cause == 0 && (*e & D)), "D=0, written");
    say("micro: fault: accessed and dirty bits are set by %s\n", cause ? "software" : "hardware");

    u64 mega = page + MEGA;
    e = entry(kernel_root, mega, 1);
    expect(mega, leaf(frame, RW), LOAD_FAULT, STORE_FAULT, "a misaligned 2 MiB leaf");
    expect(mega, link(frame) | A, LOAD_FAULT, STORE_FAULT, "a link with A set is reserved");
    expect(mega, 0, LOAD_FAULT, STORE_FAULT, "an invalid directory entry");
    check(probe_load(1UL << 62) == LOAD_FAULT, "an address that is not sign-extended");
    return 16;
}

/* Demand paging: a user program touches pages that the fault handler then maps. */
static u64 user_base, user_pages, taken;

static int demand(u64 cause, u64 va)
{
    u64 page = va & ~(PAGE - 1UL);
    if (page < user_base || page > user_base + user_pages * PAGE)
        return 0;
    pte *at = entry(kernel_root, page, 0);
    if (!(*at & V)) {
        if (cause == FETCH_FAULT)
            return 0;
        *at = leaf(new_page(), V | R | W | U); /* A and D are set at later faults */
    } else {
        *at |= cause == STORE_FAULT ? A | D : A;
    }
    fence_va(page);
    taken++;
    return 1;
}

extern u8 user_program[];

u64 run_user(void)
{
    user_base = PLACE(17);
    user_pages = number("pages", 8);
    taken = 0;
    *entry(kernel_root, user_base, 0) = leaf(user_program, V | R | X | U);
    fence_va(user_base);
    fault_handler = demand;
    u64 sum = enter_user(user_base, user_base, user_pages);
    fault_handler = 0;
    check(sum == user_pages * (user_pages + 1) / 2, "the user program read back its stores");
    return taken;
}
