/* A scenario of two harts: the kernel's starts a second one, which does what it is told to. */
#include "scenarios.h"

enum { HSM = 0x48534d, START = 0, STOP = 1 };
enum { RFENCE = 0x52464e43, REMOTE_SFENCE_VMA = 1 };

/* What the second hart is to do: access this address (0: nothing, 1: stop), and what it read. */
static volatile u64 wanted, seen;
static u64 second;

extern u8 second_start[];

/* Let QEMU run the other hart: it has one thread for both. */
static void wait(void) { asm volatile(".word 0x0100000f" ::: "memory"); /* pause */ }

void second_main(u64 hart)
{
    (void)hart;
    for (;;) {
        u64 va = wanted;
        if (va == 1) {
            wanted = 0;
            sbi_call(HSM, STOP, (u64[5]){0});
        }
        if (va) {
            seen = load(va);
            asm volatile("fence" ::: "memory");
            wanted = 0;
        }
        wait();
    }
}

static int begin(void)
{
    second = this_hart ? 0 : 1;
    u64 satp = satp_of(kernel_root, 0);
    return sbi_call(HSM, START, (u64[5]){second, (u64)second_start, satp}) == 0;
}

static u64 tell(u64 va)
{
    wanted = va;
    while (wanted)
        wait();
    return seen;
}

/* Map another frame at a page that both harts use; CALLED: fence it on both. */
__attribute__((noipa)) static u64 move_for_both(u64 va, int called)
{
    if (!begin()) {
        check(0, "a second hart is there: --smp 2");
        return 0;
    }
    pte *e = entry(kernel_root, va, 0);
    *e = leaf(frame_with(1), RW);
    fence_va(va);
    check(tell(va) == 1, "the second hart reads the first frame");
    *e = leaf(frame_with(2), RW);
    if (called)
        sbi_call(RFENCE, REMOTE_SFENCE_VMA, (u64[5]){1UL << second, 0, va, PAGE});
    fence_va(va);
    check(load(va) == 2, "the first hart reads the second frame");
    /* Something else, so that the change is over. */
    *entry(kernel_root, va + PAGE, 0) = leaf(frame_with(3), RW);
    u64 read = tell(va);
    check(read == 2 || (!called && read == 1), "the second hart reads one of the two frames");
    tell(1);
    return 1;
}
u64 run_bug_remote(void) { return move_for_both(PLACE(30), 0); }
u64 run_fixed_remote(void) { return move_for_both(PLACE(30), 1); }
