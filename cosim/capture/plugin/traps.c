#include "hart.h"

static uint64_t vector_offsets[PAGE / 2 / 64]; /* a bit for each even offset in a page */

bool may_be_vector(uint64_t va)
{
    unsigned bit = (va & (PAGE - 1)) / 2;
    return vector_offsets[bit / 64] >> bit % 64 & 1;
}

static void vector_written(uint64_t tvec)
{
    uint64_t va = tvec & -4ull;
    unsigned bit = (va & (PAGE - 1)) / 2;
    if (!may_be_vector(va)) {
        vector_offsets[bit / 64] |= 1ull << bit % 64;
        if (is_translated(va)) {
            translate_anew();
        }
    }
}

void learn_vectors(void)
{
    vector_written(reg_read(REG_STVEC));
    vector_written(reg_read(REG_MTVEC));
}

void vector_begins(struct site site)
{
    uint64_t operand = site.funct3 & 4 ? site.rs1 : reg_read(site.rs1);
    uint64_t old = reg_read(site.detail == CSR_MTVEC ? REG_MTVEC : REG_STVEC);
    switch (site.funct3 & 3) {
    case 1:
        vector_written(operand);
        break;
    case 2:
        vector_written(old | operand);
        break;
    case 3:
        vector_written(old & ~operand);
        break;
    }
}

void return_begins(unsigned vcpu, struct site site)
{
    harts[vcpu].returned = counters_of(vcpu)->started;
    harts[vcpu].returned_from = pc_of(site);
    take_requests(vcpu, site);
}

enum cause {
    FETCH_MISALIGNED = 0,
    FETCH_ACCESS = 1,
    FETCH_PAGE = 12,
    LOAD_PAGE = 13,
    STORE_PAGE = 15,
    FETCH_GUEST_PAGE = 20,
    LOAD_GUEST_PAGE = 21,
    STORE_GUEST_PAGE = 23
};

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
        .icount = counters_of(vcpu)->started, .pc = epc, .hart = vcpu, .priv = from};
    if (options.accesses) {
        enum access kind = cause == FETCH_PAGE || cause == FETCH_GUEST_PAGE  ? FETCH
                           : cause == LOAD_PAGE || cause == LOAD_GUEST_PAGE ? READ
                                                                            : WRITE;
        filter_faulted(vcpu, kind, tval);
        forget_fetched();
        struct event *access = emit(ACCESS, &at);
        access->a = tval;
        access->b = -1 - (int64_t)cause;
        access->sub = kind;
        access->flags = (status >> 18 & 1 && at.priv == PRIV_S ? FLAG_SUM : 0) |
                        (status >> 19 & 1 ? FLAG_MXR : 0);
    }
    struct event *event = emit(PAGE_FAULT, &at);
    event->a = tval;
    event->b = cause;
}

void on_enter(unsigned vcpu, void *data)
{
    struct site site = ((union packed_site){.data = data}).site;
    struct hart *hart = &harts[vcpu];
    struct hart_counters *count = counters_of(vcpu);
    bool machine = site.priv == PRIV_M;
    if (reg_read(REG_PC) != (reg_read(machine ? REG_MTVEC : REG_STVEC) & -4ull)) {
        return;
    }
    uint64_t cause = reg_read(machine ? REG_MCAUSE : REG_SCAUSE);
    uint64_t epc = reg_read(machine ? REG_MEPC : REG_SEPC);
    bool exception = cause >> 63 == 0;
    /* Firmware may have entered the vector by mret: then the trap was counted when it took it. */
    bool returned = hart->returned == count->started && hart->returned_from != epc;
    bool began = cause != FETCH_MISALIGNED && cause != FETCH_ACCESS && cause != FETCH_PAGE &&
                 cause != FETCH_GUEST_PAGE;
    if (exception && began && !returned) {
        count->started--;
        if (count->pending && epc == (uint64_t)hart->pending.at.pc) {
            count->pending = 0; /* it trapped instead of having its effect */
        }
    }
    if (enter(vcpu)) {
        settle(vcpu);
        if (exception && !machine && is_page_fault(cause)) {
            page_faulted(vcpu, site.priv, cause, epc);
        }
        leave();
    }
}
