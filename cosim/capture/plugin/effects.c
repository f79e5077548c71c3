#include "hart.h"

static int atp_register(unsigned csr, unsigned priv)
{
    if (csr == CSR_HGATP) {
        return HGATP;
    }
    return csr == CSR_VSATP || priv & PRIV_VIRT ? VSATP : SATP;
}

static uint64_t read_atp(unsigned csr)
{
    return reg_read(csr == CSR_HGATP ? REG_HGATP : csr == CSR_VSATP ? REG_VSATP : REG_SATP);
}

static void atp_written(unsigned vcpu, const struct pending *done)
{
    int which = atp_register(done->site.detail, done->site.priv);
    uint64_t value = read_atp(done->site.detail);
    struct event *event = emit(SATP_WRITE, &done->at);
    event->a = done->before;
    event->b = value;
    event->sub = which;
    if (which == SATP) {
        harts[vcpu].satp = value;
        tables_load_root(value, &done->at);
    }
    filter_fenced();
    forget_fetched();
}

static void block_zeroed(unsigned vcpu, const struct pending *done)
{
    /* QEMU makes no memory callback for cbo.zero; it was translated by the tables as they are. */
    struct walk walk = {.ok = true, .pa = done->operand};
    if (done->site.class != CLASS_M) {
        walk = guest_walk(harts[vcpu].satp, done->operand);
    }
    if (!walk.ok || done->site.priv & PRIV_VIRT) {
        return;
    }
    access_event(vcpu, &done->at, done->site.class, WRITE, done->site.priv, done->operand, walk.pa,
                 options.cbo_block);
    if (tables_live(walk.pa)) {
        struct part part = {.pa = walk.pa, .length = options.cbo_block};
        tables_store(&part, 1, options.cbo_block, BY_CBO_ZERO, &done->at);
    } else {
        filter_allow_stores(vcpu, done->site.class, harts[vcpu].mxr, done->operand);
    }
}

static void fenced(unsigned vcpu, const struct pending *done)
{
    uint64_t satp = harts[vcpu].satp;
    bool va = done->site.rs1 != 0, asid = done->site.rs2 != 0;
    struct event *event = emit(FENCE, &done->at);
    event->a = done->before;
    event->b = done->operand;
    event->sub = done->site.detail | (va ? FORM_VA : 0) | (asid ? FORM_ASID : 0);
    bool first_stage = (done->site.detail == SFENCE_VMA || done->site.detail == SINVAL_VMA) &&
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

void settle(unsigned vcpu)
{
    struct hart *hart = &harts[vcpu];
    struct hart_counters *count = counters_of(vcpu);
    if (!count->pending) {
        return;
    }
    count->pending = 0;
    struct pending *done = &hart->pending;
    switch (done->op) {
    case OP_FENCE:
        fenced(vcpu, done);
        break;
    case OP_ATP:
        atp_written(vcpu, done);
        break;
    case OP_CBO_ZERO:
        block_zeroed(vcpu, done);
        break;
    case OP_SC:
        /* rd is 0 after success; without one, only the store that was seen can tell. */
        if (done->site.rd == 0 || reg_read(done->site.rd) == 0) {
            tables_store(done->parts, done->part_count, done->size, BY_SC, &done->at);
        }
        break;
    default:
        break;
    }
}

struct pending *defer(unsigned vcpu, struct site site, const struct stamp *at)
{
    struct pending *pending = &harts[vcpu].pending;
    *pending = (struct pending){.op = site.op, .site = site, .at = *at};
    counters_of(vcpu)->pending = 1;
    return pending;
}

/* Fields of a fence's operands that count: 16 bits of an ASID, 14 of a VMID. */
static void fence_begins(unsigned vcpu, struct site site, const struct stamp *at)
{
    bool gstage = site.detail == HFENCE_GVMA || site.detail == HINVAL_GVMA;
    struct pending *pending = defer(vcpu, site, at);
    if (site.rs1) {
        pending->before = gstage ? reg_read(site.rs1) << 2 : reg_read(site.rs1);
    }
    if (site.rs2) {
        pending->operand = reg_read(site.rs2) & (gstage ? 0x3fff : 0xffff);
    }
}

/* sstatus and its kin: of their fields only MXR is followed here (SUM is in the block's class). */
static void status_begins(unsigned vcpu, struct site site)
{
    struct hart *hart = &harts[vcpu];
    uint64_t operand = site.funct3 & 4 ? site.rs1 : reg_read(site.rs1);
    bool set = operand >> 19 & 1, mxr = hart->mxr;
    switch (site.funct3 & 3) {
    case 1:
        mxr = set;
        break;
    case 2:
        mxr |= set;
        break;
    case 3:
        mxr &= !set;
        break;
    }
    if (mxr != hart->mxr && !(site.priv & PRIV_VIRT) && site.detail != CSR_VSSTATUS) {
        hart->mxr = mxr;
        filter_forget();
    }
}

void on_execute(unsigned vcpu, void *data)
{
    struct site site = ((union packed_site){.data = data}).site;
    /* Returns and vectors are followed outside of the region too, for the instruction count. */
    if (site.op == OP_RETURN) {
        return_begins(vcpu, site);
        return;
    }
    if (site.op == OP_VECTOR) {
        lock_harts();
        vector_begins(site);
        leave();
        return;
    }
    if (site.op == OP_CBO_ZERO && site.class < CLASSES &&
        fast_hit(vcpu, site.class, WRITE, reg_read(site.rs1))) {
        return;
    }
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    struct stamp at = stamp_of(vcpu, site);
    switch (site.op) {
    case OP_FENCE:
        fence_begins(vcpu, site, &at);
        break;
    case OP_ATP:
        defer(vcpu, site, &at)->before = read_atp(site.detail);
        break;
    case OP_CBO_ZERO:
        defer(vcpu, site, &at)->operand = reg_read(site.rs1) & -(uint64_t)options.cbo_block;
        break;
    case OP_STATUS:
        status_begins(vcpu, site);
        break;
    }
    leave();
}

void on_next(unsigned vcpu, void *data)
{
    (void)data;
    if (enter(vcpu)) {
        settle(vcpu);
        leave();
    }
}
