/* Scenarios that change entries with every kind of store, and fence in every way. */
#include "scenarios.h"

/* PAGE, whose entry was just changed, must show the frame that holds VALUE. */
static void shows(u64 page, u64 value, const char *how)
{
    fence_va(page);
    u64 cause = probe_load(page);
    check(cause == 0 && load(page) == value, how);
}

u64 run_stores(void)
{
    u64 va = PLACE(11), page = va, scratch;
    u64 a = leaf(frame_with(1), RW), b = leaf(frame_with(2), RW);
    pte *e = entry(kernel_root, va, 0);
    u64 steps = 0;

#define NEXT() (steps++, page = va + steps * PAGE, e = entry(kernel_root, page, 0))
    asm volatile("sd %0, (%1)" ::"r"(a), "r"(e) : "memory");
    shows(page, 1, "sd");
    NEXT();
    register u64 value asm("a5") = b;
    register pte *where asm("a4") = e;
    asm volatile(".option push\n.option rvc\nc.sd a5, 0(a4)\n.option pop" ::"r"(value), "r"(where)
                 : "memory");
    shows(page, 2, "c.sd");
    NEXT();
    asm volatile("sw %0, (%1)" ::"r"(a), "r"(e) : "memory");
    shows(page, 1, "sw");
    NEXT();
    *e = a & ~0xffffUL;
    asm volatile("sh %0, (%1)" ::"r"(a), "r"(e) : "memory");
    shows(page, 1, "sh");
    NEXT();
    *e = b & ~0xffUL;
    asm volatile("sb %0, (%1)" ::"r"(b), "r"(e) : "memory");
    shows(page, 2, "sb");
    NEXT();
    set_csr(sstatus, 1 << 13);
    asm volatile("fmv.d.x ft0, %0\nfsd ft0, (%1)" ::"r"(b), "r"(e) : "memory");
    clear_csr(sstatus, 3 << 13);
    shows(page, 2, "fsd");
    NEXT();
    asm volatile("amoswap.d %0, %1, (%2)" : "=&r"(scratch) : "r"(a), "r"(e) : "memory");
    check(scratch == 0, "amoswap.d gives the old entry");
    shows(page, 1, "amoswap.d");
    NEXT();
    *e = b & ~(u64)V;
    asm volatile("amoor.d %0, %1, (%2)" : "=&r"(scratch) : "r"((u64)V), "r"(e) : "memory");
    shows(page, 2, "amoor.d");
    NEXT();
    *e = a;
    shows(page, 1, "sd before amoand.d");
    asm volatile("amoand.d %0, %1, (%2)" : "=&r"(scratch) : "r"(~(u64)W), "r"(e) : "memory");
    shows(page, 1, "amoand.d");
    check(probe_store(page, 0) == STORE_FAULT, "amoand.d takes W");
    NEXT();
    *e = a;
    shows(page, 1, "sd before amoxor.w");
    asm volatile("amoxor.w %0, %1, (%2)" : "=&r"(scratch) : "r"(a ^ b), "r"(e) : "memory");
    shows(page, 2, "amoxor.w");
    NEXT();
    asm volatile("1: lr.d %0, (%1)\nsc.d %0, %2, (%1)\nbnez %0, 1b"
                 : "=&r"(scratch) : "r"(e), "r"(a) : "memory");
    shows(page, 1, "sc.d");
    /* There is no reservation any more, so this one must fail and change nothing. */
    asm volatile("sc.d %0, %2, (%1)" : "=&r"(scratch) : "r"(e), "r"(b) : "memory");
    check(scratch != 0 && *e == a, "sc.d without a reservation fails");
    shows(page, 1, "a failed sc.d");
    NEXT();
    asm volatile("1: lr.w %0, (%1)\nsc.w %0, %2, (%1)\nbnez %0, 1b"
                 : "=&r"(scratch) : "r"(e), "r"(b) : "memory");
    shows(page, 2, "sc.w");
    NEXT();
#undef NEXT
    return steps;
}

static void zero_block(u64 at) { cbo_zero((void *)at); }

/* cbo.zero clears the eight entries of one 64-byte block. */
u64 run_cbo_zero(void)
{
    enum { BLOCK = 8 };
    if (probe(zero_block, (u64)new_page()) == ILLEGAL) {
        say("micro: cbo-zero: this hart has no cbo.zero\n");
        return 0;
    }
    u64 va = PLACE(12);
    for (u64 i = 0; i < 2 * BLOCK; i++)
        *entry(kernel_root, va + i * PAGE, 0) = leaf(frame_with(i), RW);
    fence_all();
    for (u64 i = 0; i < 2 * BLOCK; i++)
        check(load(va + i * PAGE) == i, "mapped");
    cbo_zero((void *)entry(kernel_root, va + BLOCK * PAGE, 0));
    for (u64 i = 0; i < 2 * BLOCK; i++)
        fence_va(va + i * PAGE);
    for (u64 i = 0; i < BLOCK; i++) {
        check(load(va + i * PAGE) == i, "the block before is unchanged");
        check(probe_load(va + (BLOCK + i) * PAGE) == LOAD_FAULT, "the block is cleared");
    }
    return 1;
}

/* One store changes two entries, and one reaches beyond the table. */
u64 run_misaligned(void)
{
    u64 va = PLACE(13);
    pte *table = new_page();
    u64 *beside = new_page();
    check((u64)beside == (u64)table + PAGE, "two pages in a row");
    table[0] = leaf(frame_with(1), RW) | 1UL << 58; /* a reserved bit */
    table[511] = leaf(frame_with(3), RW) | 1UL << 58;
    *entry(kernel_root, va, 1) = link(table);
    fence_all();
    check(probe_load(va) == LOAD_FAULT, "a reserved bit faults");
    /* The upper half of entry 0 and the lower half of entry 1. */
    u64 both = leaf(frame_with(2), RW) << 32;
    asm volatile("sd %0, 4(%1)" ::"r"(both), "r"(table) : "memory");
    shows(va, 1, "the first entry");
    shows(va + PAGE, 2, "the second entry");
    /* The upper half of the last entry and four bytes of the page beside it. */
    asm volatile("sd %0, 4(%1)" ::"r"(0x1234UL << 32), "r"(&table[511]) : "memory");
    shows(va + 511 * PAGE, 3, "the last entry");
    check(*beside == 0x1234, "the page beside");
    return 2;
}

static void try_svinval(u64 va)
{
    sfence_w_inval();
    sinval_va_asid(va, 0);
    sfence_inval_ir();
}

/* Fence with the three instructions of Svinval. */
u64 run_svinval(void)
{
    u64 va = PLACE(14);
    if (probe(try_svinval, va) == ILLEGAL) {
        say("micro: svinval: this hart has no Svinval\n");
        return 0;
    }
    void *frames[2] = {frame_with(0), frame_with(1)};
    for (u64 i = 0; i < 8; i++) {
        *entry(kernel_root, va, 0) = leaf(frames[i % 2], RW);
        try_svinval(va);
        check(load(va) == i % 2, "the new frame");
    }
    return 8;
}
