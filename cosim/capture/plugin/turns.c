#include "turns.h"

#include "effects.h"
#include "guest.h"
#include "hart.h"
#include "stream.h"

#include <stdio.h>
#include <stdlib.h>

/* A write of satp was an event before the hart could say what it left there.  If that was wrong, a
 * further event puts it right. */
static void check_foretold(unsigned vcpu)
{
    struct hart *hart = &harts[vcpu];
    if (!hart->foretold || !enter(vcpu)) {
        return;
    }
    hart->foretold = false;
    uint64_t satp = reg_read(REG_SATP);
    if (satp != hart->satp && !(reg_read(REG_PRIV) & PRIV_VIRT)) {
        struct stamp at = stamp_now(vcpu);
        struct event *event = emit(KIND_SATP_WRITE, &at);
        event->a = hart->satp;
        event->b = satp;
        hart->satp = satp;
        tables_load_root(satp, &at);
    }
}

void on_count(unsigned vcpu, void *data)
{
    (void)vcpu;
    now->started += (uintptr_t)data;
}

void on_block(unsigned given, void *data)
{
    (void)given;
    (void)data;
    if (same_hart_runs()) {
        return;
    }
    uint64_t next = reg_read(REG_MHARTID);
    if (next >= hart_count) {
        fprintf(stderr, "cosim plugin: hart %llu is not one of %u\n", (unsigned long long)next,
                hart_count);
        abort();
    }
    if (next == running) {
        return;
    }
    if (phase == ACTIVE && stream_is_open()) {
        settle_unseen(running);
    }
    take_turns(next);
    check_foretold(next);
}
