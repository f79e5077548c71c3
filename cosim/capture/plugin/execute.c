#include "execute.h"

#include "calls.h"
#include "count.h"
#include "effects.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "options.h"
#include "tables.h"
#include "traps.h"
#include "vectors.h"

/* Devices write to RAM unseen.  What they did to tables is looked for at a fence, but not at each
 * one: the comparison of all tables with RAM takes as long as some 100,000 instructions. */
static void look_for_device_writes(const struct stamp *at)
{
    enum { APART = 1 << 20 };
    static uint64_t last;
    uint64_t now = all_instructions();
    if (options.devices && now - last >= APART) {
        last = now;
        tables_device_writes(at);
    }
}

/* Of a fence's operands, 16 bits of an ASID and 14 of a VMID count. */
static void fence_begins(unsigned vcpu, struct site site, const struct stamp *at)
{
    bool gstage = site.detail == FENCE_HFENCE_GVMA || site.detail == FENCE_HINVAL_GVMA;
    tables_hardware_updates(at);
    look_for_device_writes(at);
    struct pending *pending = defer(vcpu, site, at);
    if (site.rs1) {
        pending->before = gstage ? reg_read(site.rs1) << 2 : reg_read(site.rs1);
    }
    if (site.rs2) {
        pending->operand = reg_read(site.rs2) & (gstage ? 0x3fff : 0xffff);
    }
    foretell(pending);
}

/* QEMU makes no memory callback for cbo.zero, so the tables tell where it stores.  It may clear the
 * entry that maps its own address, so they are walked before. */
static void zero_begins(unsigned vcpu, struct site site, const struct stamp *at)
{
    struct pending *pending = defer(vcpu, site, at);
    uint64_t va = reg_read(site.rs1) & -(uint64_t)options.cbo_block;
    struct walk walk;
    guest_walk(&walk, site.class == CLASS_M ? 0 : harts[vcpu].satp, va);
    pending->operand = va;
    pending->parts[0] = (struct part){.pa = walk.pa, .length = options.cbo_block};
    pending->part_count = walk.ok && !(site.priv & PRIV_VIRT);
}

/* A write to sstatus, mstatus or vsstatus.  Only MXR is followed here: SUM is in the block's
 * class. */
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

void on_execute(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct site site = ((union packed_site){.data = data}).site;
    in_block(site.rest);
    /* The instruction count needs returns and vectors outside of the region too. */
    if (site.op == OP_RETURN) {
        return_begins(vcpu, site);
        return;
    }
    if (site.op == OP_VECTOR) {
        vector_begins(site);
        return;
    }
    if (site.op == OP_CBO_ZERO && site.class < CLASSES &&
        fast_hit(site.class, ACCESS_WRITE, reg_read(site.rs1))) {
        return;
    }
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    /* What firmware executes for the guest is no event of the guest: its call is. */
    if ((site.op == OP_FENCE || site.op == OP_ORDER) && site.priv == PRIV_M &&
        calls_are_followed()) {
        return;
    }
    struct stamp at = stamp_of(vcpu, site);
    struct pending *pending;
    switch (site.op) {
    case OP_FENCE:
        fence_begins(vcpu, site, &at);
        break;
    case OP_ATP:
        pending = defer(vcpu, site, &at);
        pending->before = read_atp(site.detail);
        foretell(pending);
        break;
    case OP_ENVCFG:
        tables_hardware_updates(&at);
        defer(vcpu, site, &at)->before = read_envcfg(site.detail);
        break;
    case OP_ORDER:
        foretell(defer(vcpu, site, &at));
        break;
    case OP_CBO_ZERO:
        zero_begins(vcpu, site, &at);
        break;
    case OP_STATUS:
        status_begins(vcpu, site);
        break;
    }
}

void on_next(unsigned given, void *data)
{
    (void)given;
    in_block(((union packed_site){.data = data}).site.rest);
    if (enter(running)) {
        settle(running);
    }
}
