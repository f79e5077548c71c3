#include "effects.h"

#include "access.h"
#include "filter.h"
#include "options.h"
#include "processes.h"
#include "stream.h"

static int atp_register(unsigned csr, unsigned priv)
{
    if (csr == CSR_HGATP) {
        return SATP_HGATP;
    }
    return csr == CSR_VSATP || priv & PRIV_VIRT ? SATP_VSATP : SATP_SATP;
}

uint64_t read_atp(unsigned csr)
{
    return reg_read(csr == CSR_HGATP ? REG_HGATP : csr == CSR_VSATP ? REG_VSATP : REG_SATP);
}

static void atp_written(unsigned vcpu, const struct pending *done, uint64_t value)
{
    int which = atp_register(done->site.detail, done->site.priv);
    uint32_t process = 0;
    if (which == SATP_SATP) {
        process_leaves(harts[vcpu].satp);
        process = process_loaded(value);
    }
    struct event *event = emit(KIND_SATP_WRITE, &done->at);
    event->a = done->before;
    event->b = value;
    event->c = process;
    event->sub = which;
    if (which == SATP_SATP) {
        harts[vcpu].satp = value;
        tables_load_root(value, &done->at);
    }
    filter_fenced();
    forget_fetched();
}

uint64_t read_envcfg(unsigned csr)
{
    return reg_read(csr == CSR_HENVCFG ? REG_HENVCFG : REG_MENVCFG);
}

static void envcfg_written(unsigned vcpu, const struct pending *done)
{
    enum envcfg which = done->site.detail == CSR_HENVCFG ? ENVCFG_HENVCFG : ENVCFG_MENVCFG;
    uint64_t value = read_envcfg(done->site.detail);
    if (!envcfg_is(vcpu, which, value)) {
        return;
    }
    struct event *event = emit(KIND_ENVCFG_WRITE, &done->at);
    event->a = done->before;
    event->b = value;
    event->c = options.switches;
    event->sub = which;
    filter_forget();
    forget_fetched();
}

static void block_zeroed(unsigned vcpu, const struct pending *done)
{
    if (done->part_count == 0) {
        return;
    }
    uint64_t pa = done->parts[0].pa;
    access_event(vcpu, &done->at, done->site.class, ACCESS_WRITE, done->site.priv, done->operand,
                 pa, options.cbo_block);
    if (tables_live(pa)) {
        tables_store(done->parts, 1, options.cbo_block, PTE_OP_CBO_ZERO, &done->at);
    } else {
        filter_allow_stores(vcpu, done->site.class, harts[vcpu].mxr, done->operand);
    }
}

static void fenced(unsigned vcpu, const struct pending *done)
{
    uint64_t satp = harts[vcpu].satp;
    unsigned instruction = done->site.detail;
    bool va = done->site.rs1 != 0, asid = done->site.rs2 != 0;
    struct event *event = emit(KIND_FENCE, &done->at);
    event->a = done->before;
    event->b = done->operand;
    event->sub = instruction | (va ? FENCE_VA : 0) | (asid ? FENCE_ASID : 0);
    bool first_stage = (instruction == FENCE_SFENCE_VMA || instruction == FENCE_SINVAL_VMA) &&
                       !(done->site.priv & PRIV_VIRT);
    if (first_stage && va && (!asid || (satp >> 44 & 0xffff) == done->operand)) {
        filter_fenced_va(done->before, asid, satp);
    } else if (first_stage && !asid) {
        filter_fenced();
    } else {
        filter_forget();
    }
    forget_fetched();
}

static void fences_ordered(const struct pending *done)
{
    emit(KIND_FENCE_ORDER, &done->at)->sub = done->site.detail;
}

static void settle_pending(unsigned vcpu)
{
    struct pending *done = &harts[vcpu].pending;
    set_waits(false);
    switch (done->op) {
    case OP_FENCE:
        fenced(vcpu, done);
        break;
    case OP_ORDER:
        fences_ordered(done);
        break;
    case OP_ATP:
        atp_written(vcpu, done, read_atp(done->site.detail));
        break;
    case OP_ENVCFG:
        envcfg_written(vcpu, done);
        break;
    case OP_VSTORE:
        tables_vector_store(&done->at);
        break;
    case OP_CBO_ZERO:
        block_zeroed(vcpu, done);
        break;
    case OP_SC:
        /* rd is 0 after success.  If rd is x0, the store that was seen proves the success. */
        if (done->site.rd == 0 || reg_read(done->site.rd) == 0) {
            tables_store(done->parts, done->part_count, done->size, PTE_OP_SC, &done->at);
        }
        break;
    default:
        break;
    }
}

void settle(unsigned vcpu)
{
    if (harts[vcpu].waits) {
        settle_pending(vcpu);
    }
}

struct pending *defer(unsigned vcpu, struct site site, const struct stamp *at)
{
    struct pending *pending = &harts[vcpu].pending;
    *pending = (struct pending){.op = site.op, .site = site, .at = *at};
    set_waits(true);
    return pending;
}

/* The value that an instruction on a CSR will write, which holds `old`. */
static uint64_t csr_after(struct site site, uint64_t old)
{
    uint64_t operand = site.funct3 & 4 ? site.rs1 : reg_read(site.rs1);
    switch (site.funct3 & 3) {
    case 2:
        return old | operand;
    case 3:
        return old & ~operand;
    default:
        return operand;
    }
}

void foretell(struct pending *pending)
{
    unsigned priv = pending->site.priv;
    if (hart_count == 1) {
        return;
    }
    if (priv != PRIV_M && (priv != PRIV_S || reg_read(REG_MSTATUS) >> 20 & 1)) {
        return; /* it traps, by TVM */
    }
    pending->sure = pending->op != OP_ATP;
    if (pending->op == OP_ATP && pending->site.detail == CSR_SATP) {
        uint64_t value = csr_after(pending->site, pending->before);
        pending->written = value;
        /* The CPU has this mode. */
        pending->sure = atp_levels(value) == 0 || (value ^ pending->before) >> 60 == 0;
    }
}

static bool is_zero(uint64_t pa, unsigned length)
{
    while (length > 0 && ram_word(pa) == 0) {
        pa += 8;
        length -= 8;
    }
    return length == 0;
}

void settle_unseen(unsigned vcpu)
{
    struct pending *done = &harts[vcpu].pending;
    bool sure = harts[vcpu].waits && done->sure;
    if (!harts[vcpu].waits) {
        return;
    }
    if (done->op == OP_VSTORE) {
        sure = true;
    } else if (done->op == OP_CBO_ZERO && done->site.class != CLASS_OTHER) {
        uint64_t pa = done->parts[0].pa;
        sure = done->part_count && ram_holds(pa) && is_zero(pa, options.cbo_block);
    } else if (done->op == OP_SC) {
        /* One that stored what was there already is not told from one that failed. */
        sure = tables_differ(done->parts, done->part_count);
    }
    if (!sure) {
        return;
    }
    if (done->op == OP_ATP) {
        set_waits(false);
        atp_written(vcpu, done, done->written);
        harts[vcpu].foretold = true;
    } else if (done->op == OP_SC) {
        set_waits(false);
        tables_store(done->parts, done->part_count, done->size, PTE_OP_SC, &done->at);
    } else {
        settle(vcpu);
    }
}
