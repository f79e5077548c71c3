#include "traps.h"

#include "access.h"
#include "calls.h"
#include "count.h"
#include "effects.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "options.h"
#include "region.h"

void return_begins(unsigned vcpu, struct site site)
{
    harts[vcpu].returned = executed_by(vcpu);
    harts[vcpu].returned_from = pc_of(site);
    harts[vcpu].returned_to = reg_read(site.detail == MRET ? REG_MEPC : REG_SEPC);
    if (site.detail == MRET) {
        call_returns(vcpu);
    }
    take_requests(vcpu, site);
}

enum cause {
    FETCH_MISALIGNED = 0,
    FETCH_ACCESS = 1,
    ILLEGAL = 2,
    BREAKPOINT = 3,
    CALL_FROM_U = 8,
    CALL_FROM_M = 11,
    FETCH_PAGE = 12,
    LOAD_PAGE = 13,
    STORE_PAGE = 15,
    FETCH_GUEST_PAGE = 20,
    LOAD_GUEST_PAGE = 21,
    STORE_GUEST_PAGE = 23
};

/* Return true if the instruction traps by itself.  QEMU ends its block with it, so it counts. */
static bool is_call(uint64_t cause)
{
    return cause == BREAKPOINT || (cause >= CALL_FROM_U && cause <= CALL_FROM_M);
}

enum { NEVER = -1 };

/* The last instruction that ended its block and of which QEMU may count that it trapped. */
static struct {
    int64_t count;     /* with it */
    unsigned halfword; /* in its page */
} last;

void on_last(unsigned vcpu, void *data)
{
    (void)vcpu;
    struct site site = ((union packed_site){.data = data}).site;
    in_block(site.rest);
    last.count = qemu_count();
    last.halfword = site.block + site.offset;
}

void on_wait(unsigned vcpu, void *data)
{
    (void)vcpu;
    wait_begins(((union packed_site){.data = data}).site.rest);
}

/* Return true if the last instruction that was counted is a return, and not the one at `epc`. */
static bool has_returned(unsigned vcpu, uint64_t epc)
{
    return harts[vcpu].returned == executed_by(vcpu) && harts[vcpu].returned_from != epc;
}

/* What the registers say of an exception. */
struct trap {
    uint64_t cause, epc, value;
};

/* Return true if a jump, a branch or a fence trapped, as QEMU's translator finds these at fault. */
static bool is_transfer_at_fault(const struct trap *trap)
{
    return trap->cause == FETCH_MISALIGNED || (trap->cause == ILLEGAL && is_transfer(trap->value));
}

/* The instruction began and did not retire: count it no more.  Return true if QEMU's own count goes on to
 * include it. */
static bool takes_back(unsigned vcpu, const struct trap *trap)
{
    if (qemu_counts()) {
        bool is_last =
            qemu_count() == last.count && (trap->epc & (PAGE - 1)) / 2 == last.halfword;
        return is_transfer_at_fault(trap) || (is_last && !has_returned(vcpu, trap->epc));
    }
    uncount();
    return is_call(trap->cause);
}

/* Return true if the instruction began.  One that could not be fetched did not.  But QEMU's hlvx faults as a
 * fetch does, at the address that it reads. */
static bool has_begun(const struct trap *trap)
{
    enum { LONGEST = 4 };
    bool of_fetch = trap->cause == FETCH_ACCESS || trap->cause == FETCH_PAGE ||
                    trap->cause == FETCH_GUEST_PAGE;
    return !of_fetch || trap->value - trap->epc >= LONGEST;
}

static bool is_page_fault(uint64_t cause)
{
    return cause == FETCH_PAGE || cause == LOAD_PAGE || cause == STORE_PAGE ||
           cause == FETCH_GUEST_PAGE || cause == LOAD_GUEST_PAGE || cause == STORE_GUEST_PAGE;
}

enum { HSTATUS_GVA = 1 << 6, HSTATUS_SPV = 1 << 7 };

static void page_faulted(unsigned vcpu, unsigned priv, uint64_t cause, uint64_t epc)
{
    uint64_t tval = reg_read(REG_STVAL), status = reg_read(REG_SSTATUS);
    uint64_t hstatus = priv & PRIV_VIRT ? 0 : reg_read(REG_HSTATUS);
    unsigned from = status >> 8 & 1;
    if (priv & PRIV_VIRT || hstatus & HSTATUS_SPV) {
        from |= PRIV_VIRT;
    } else if (hstatus & HSTATUS_GVA) {
        from = PRIV_VIRT | (hstatus >> 8 & 1); /* hlv, hsv: SPVP */
    }
    struct stamp at = {
        .icount = all_instructions(), .pc = epc, .hart = vcpu, .priv = from};
    if (options.accesses) {
        enum access kind = cause == FETCH_PAGE || cause == FETCH_GUEST_PAGE  ? ACCESS_FETCH
                           : cause == LOAD_PAGE || cause == LOAD_GUEST_PAGE ? ACCESS_READ
                                                                            : ACCESS_WRITE;
        filter_faulted(vcpu, kind, tval);
        forget_fetched();
        struct event *access = emit(KIND_ACCESS, &at);
        access->a = tval;
        access->b = -1 - (int64_t)cause;
        access->sub = kind;
        access->flags = (status >> 18 & 1 && at.priv == PRIV_S ? FLAG_SUM : 0) |
                        (status >> 19 & 1 ? FLAG_MXR : 0);
    }
    struct event *event = emit(KIND_PAGE_FAULT, &at);
    event->a = tval;
    event->b = cause;
}

void on_enter(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct site site = ((union packed_site){.data = data}).site;
    struct hart *hart = &harts[vcpu];
    bool machine = site.priv == PRIV_M;
    in_block(site.rest + 1);
    trap_begins();
    uint64_t vector = reg_read(machine ? REG_MTVEC : REG_STVEC) & -4ull;
    if (reg_read(REG_PC) != vector) {
        return;
    }
    struct trap trap = {.cause = reg_read(machine ? REG_MCAUSE : REG_SCAUSE),
                        .epc = reg_read(machine ? REG_MEPC : REG_SEPC),
                        .value = reg_read(machine ? REG_MTVAL : REG_STVAL)};
    bool exception = trap.cause >> 63 == 0;
    /* Firmware may have entered the vector by mret.  Then it took the trap, which was counted
     * then. */
    bool returned = hart->returned_to == vector && has_returned(vcpu, trap.epc);
    if (exception && !returned && has_begun(&trap)) {
        if (takes_back(vcpu, &trap)) {
            hart->calls++;
            note_call();
        }
        /* A vector store that traps has stored the elements before. */
        if (hart->waits && trap.epc == (uint64_t)hart->pending.at.pc &&
            hart->pending.op != OP_VSTORE) {
            set_waits(false); /* it trapped instead of having its effect */
        }
    }
    /* If the vector's first instruction traps, too, neither was before it. */
    hart->returned = last.count = NEVER;
    if (enter(vcpu)) {
        settle(vcpu);
        if (exception && !machine && is_page_fault(trap.cause)) {
            page_faulted(vcpu, site.priv, trap.cause, trap.epc);
        }
    }
    take_stop(vcpu);
}
