/* Traps: an expected trap is recorded and skipped; a handler may resolve a page fault. */
#include "kernel.h"

int (*fault_handler)(u64 cause, u64 va);

static volatile int probing;
static volatile u64 probed_cause;

u64 load_word(u64 va);
void store_word(u64 va, u64 value);
void call_va(u64 va);
void leave_user(u64 value) __attribute__((noreturn));

static int is_page_fault(u64 cause)
{
    return cause == FETCH_FAULT || cause == LOAD_FAULT || cause == STORE_FAULT;
}

void trap(struct frame *frame)
{
    u64 cause = read_csr(scause), va = read_csr(stval);
    int from_user = !(read_csr(sstatus) & SSTATUS_SPP);
    if (cause == ECALL_U)
        leave_user(frame->x[10]);
    if (fault_handler && is_page_fault(cause) && fault_handler(cause, va))
        return;
    if (probing && !from_user) {
        probed_cause = cause;
        /* A fetch faults at the target of a call: return from it.  Else skip the instruction. */
        if (cause == FETCH_FAULT)
            frame->pc = frame->x[1];
        else
            frame->pc += (*(const u16 *)frame->pc & 3) == 3 ? 4 : 2;
        return;
    }
    say("micro: unexpected trap: cause %d, address %x, pc %x\n", cause, va, frame->pc);
    power_off();
}

static u64 end_probe(void)
{
    probing = 0;
    return probed_cause;
}

static void start_probe(void)
{
    probed_cause = 0;
    probing = 1;
}

u64 probe_load(u64 va)
{
    start_probe();
    load_word(va);
    return end_probe();
}

u64 probe_store(u64 va, u64 value)
{
    start_probe();
    store_word(va, value);
    return end_probe();
}

u64 probe_fetch(u64 va)
{
    start_probe();
    call_va(va);
    return end_probe();
}

u64 probe(void (*do_it)(u64 argument), u64 argument)
{
    start_probe();
    do_it(argument);
    return end_probe();
}
