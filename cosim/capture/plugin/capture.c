#include "capture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct options options;
enum phase phase;
struct qemu_plugin_scoreboard *counters;

/* An executed instruction whose effect is looked at before the next one. */
struct pending {
    enum op op;
    struct site site;
    struct stamp at;
    uint64_t before;        /* ATP: the register's old value; FENCE: the address */
    uint64_t operand;       /* FENCE: the ASID; cbo.zero, vector stores: the address */
    struct part parts[2];   /* sc */
    int part_count;
    unsigned size;
};

static struct hart {
    bool begun; /* it has executed something in the region */
    bool mxr;
    uint64_t satp;
    uint64_t returned, returned_from; /* `started` and pc at the last sret or mret */
    struct pending pending;
} harts[MAX_HARTS];

static unsigned hart_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char (*labels)[33];
static unsigned label_count;
static uint64_t vector_offsets[PAGE / 2 / 64]; /* a bit for each even offset in a page */
static uint64_t first_instruction;             /* of the region */

/* QEMU refuses to find the counters of a hart whose thread has not begun yet; they lie in a row. */
static struct hart_counters *counters_of(unsigned vcpu)
{
    return (struct hart_counters *)qemu_plugin_scoreboard_find(counters, 0) + vcpu;
}

int64_t all_instructions(void)
{
    int64_t sum = 0;
    for (unsigned hart = 0; hart < hart_count; hart++) {
        sum += counters_of(hart)->started;
    }
    return sum;
}

/* -- events ----------------------------------------------------------------------------------- */

struct event *emit(enum kind kind, const struct stamp *at)
{
    struct event *event = stream_event();
    *event = (struct event){.icount = at->icount,
                            .pc = at->pc,
                            .kind = kind,
                            .hart = at->hart,
                            .priv = at->priv};
    return event;
}

bool is_loaded_root(uint64_t page)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        if (atp_levels(harts[hart].satp) && atp_root(harts[hart].satp) == page) {
            return true;
        }
    }
    return false;
}

static void forget_fetched(void)
{
    for (unsigned hart = 0; options.accesses && hart < hart_count; hart++) {
        counters_of(hart)->fetch_page = 0;
    }
}

void note_pte_write(uint64_t entry, unsigned levels, uint64_t old)
{
    filter_pte_written(entry, levels, old);
    forget_fetched();
}

/*
 * pc of an instruction of the running block.  QEMU keeps env.pc at the block's first instruction
 * or a later one of it; a block is shorter than a page, so the offset tells which.
 */
static uint64_t pc_of(struct site site)
{
    uint64_t pc = reg_read(REG_PC);
    return pc - ((pc - site.block) & (PAGE - 1)) + site.offset;
}

/* The stamp of the instruction that has begun last. */
static struct stamp stamp_of(unsigned vcpu, struct site site)
{
    return (struct stamp){.icount = counters_of(vcpu)->started - 1,
                          .pc = pc_of(site),
                          .hart = vcpu,
                          .priv = site.priv};
}

/* -- the region ------------------------------------------------------------------------------- */

/* A hart executes its first instruction in the region. */
static void begin_hart(unsigned vcpu, const struct stamp *at)
{
    struct hart *hart = &harts[vcpu];
    hart->begun = true;
    hart->satp = at->priv & PRIV_VIRT ? 0 : reg_read(REG_SATP);
    hart->mxr = reg_read(REG_SSTATUS) >> 19 & 1;
    tables_load_root(hart->satp, at);
    struct event *event = emit(SATP_WRITE, at);
    event->a = event->b = hart->satp;
    event->flags = FLAG_STOP;
}

enum end_reason { END_OF_MACHINE, END_OF_REGION };

static void end_region(enum end_reason reason, uint64_t instructions)
{
    struct audit audit = tables_audit();
    uint64_t end[] = {reason,        phase == WAITING, stream_events(), instructions,
                      audit.pages,   audit.entries,    audit.differ,    audit.differ_only_ad};
    stream_block(BLOCK_END, end, sizeof(end));
    stream_close();
    phase = DONE;
}

static struct stamp stamp_now(unsigned vcpu)
{
    return (struct stamp){.icount = counters_of(vcpu)->started,
                          .pc = reg_read(REG_PC),
                          .hart = vcpu,
                          .priv = reg_read(REG_PRIV)};
}

/* Whether the callback has something to record; takes the lock if so. */
static bool enter(unsigned vcpu)
{
    if (phase != ACTIVE) {
        return false;
    }
    pthread_mutex_lock(&lock);
    if (phase == ACTIVE && stream_is_open()) {
        if (!harts[vcpu].begun) {
            struct stamp at = stamp_now(vcpu);
            begin_hart(vcpu, &at);
        }
        return true;
    }
    if (phase == ACTIVE) {
        phase = DONE;
        translate_anew();
    }
    pthread_mutex_unlock(&lock);
    return false;
}

static void leave(void)
{
    pthread_mutex_unlock(&lock);
}

/* -- instructions whose effect shows afterwards ------------------------------------------------ */

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

static void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
                         unsigned priv, uint64_t va, uint64_t pa, unsigned size);

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

/* Take in what the instruction before has done. */
static void settle(unsigned vcpu)
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

static struct pending *defer(unsigned vcpu, struct site site, const struct stamp *at)
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

static void vector_begins(struct site site)
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

static void start_region(unsigned vcpu, const struct stamp *at)
{
    phase = ACTIVE;
    first_instruction = all_instructions() - 1;
    begin_hart(vcpu, at);
    if (options.accesses && at->priv != PRIV_M) {
        struct walk walk = guest_walk(harts[vcpu].satp, at->pc);
        enum class class = at->priv & PRIV_VIRT ? CLASS_OTHER : at->priv;
        if (class == CLASS_S && reg_read(REG_SSTATUS) >> 18 & 1) {
            class = CLASS_SUM;
        }
        access_event(vcpu, at, class, FETCH, at->priv, at->pc, walk.pa, 4);
    }
    translate_anew();
}

static void return_begins(unsigned vcpu, struct site site)
{
    harts[vcpu].returned = counters_of(vcpu)->started;
    harts[vcpu].returned_from = pc_of(site);
    /* Any guest returns from a trap every few milliseconds: often enough to look for a request. */
    bool waits = phase == WAITING && options.from.kind == AT_REQUEST;
    bool ends = phase == ACTIVE && options.to.kind == AT_REQUEST;
    if (!waits && !ends) {
        return;
    }
    pthread_mutex_lock(&lock);
    enum request request = stream_request();
    if (waits && request == REQUEST_BEGIN) {
        struct stamp at = stamp_of(vcpu, site);
        start_region(vcpu, &at);
    } else if (ends && request == REQUEST_END) {
        settle(vcpu);
        end_region(END_OF_REGION, all_instructions() - 1 - first_instruction);
        translate_anew();
    }
    pthread_mutex_unlock(&lock);
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
        pthread_mutex_lock(&lock);
        vector_begins(site);
        pthread_mutex_unlock(&lock);
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

/* -- memory ------------------------------------------------------------------------------------ */

/* Whether an access is an event; the filter follows it even where accesses are none. */
static bool passes(unsigned vcpu, enum class class, enum access kind, uint64_t va, uint64_t pa)
{
    const struct hart *hart = &harts[vcpu];
    return class != CLASS_M &&
           filter_passes(vcpu, class, hart->mxr, kind, va, pa, hart->satp) && options.accesses;
}

static void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
                         unsigned priv, uint64_t va, uint64_t pa, unsigned size)
{
    struct hart *hart = &harts[vcpu];
    uint8_t flags = (class == CLASS_SUM ? FLAG_SUM : 0) | (hart->mxr ? FLAG_MXR : 0);
    if (!passes(vcpu, class, kind, va, pa)) {
        return;
    }
    if (class == CLASS_OTHER) {
        uint64_t status = reg_read(REG_SSTATUS);
        flags = (status >> 18 & 1 ? FLAG_SUM : 0) | (status >> 19 & 1 ? FLAG_MXR : 0);
    }
    struct event *event = emit(ACCESS, at);
    event->a = va;
    event->b = pa;
    event->sub = kind;
    event->size = size;
    event->flags = flags;
    event->priv = priv;
}

/* The privilege that translates a data access where it is not the running one. */
static unsigned data_privilege(struct site site)
{
    if (site.op == OP_OTHER && !(site.priv & PRIV_VIRT) && site.priv != PRIV_M) {
        return PRIV_VIRT | (reg_read(REG_HSTATUS) >> 8 & 1); /* hlv, hsv: SPVP */
    }
    if (site.priv == PRIV_M) {
        uint64_t status = reg_read(REG_MSTATUS); /* MPRV: MPP and MPV */
        return (status >> 11 & 3) | (status >> 39 & 1 ? PRIV_VIRT : 0);
    }
    return site.priv;
}

static void look_at(unsigned vcpu, uint32_t info, uint64_t va, void *data, enum access kind)
{
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    struct site site = ((union packed_site){.data = data}).site;
    enum class class = site.class;
    unsigned size = 1u << qemu_plugin_mem_size_shift(info);
    unsigned first = PAGE - (va & (PAGE - 1));
    struct part parts[2] = {{.length = size < first ? size : first}};
    int count = 1;
    if (size > first) {
        parts[count++].length = size - first;
    }
    bool live = false;
    for (int i = 0; i < count; i++) {
        uint64_t from = i == 0 ? va : va + first;
        struct qemu_plugin_hwaddr *address = qemu_plugin_get_hwaddr(info, from);
        parts[i].pa = address ? qemu_plugin_hwaddr_phys_addr(address) : ~0ull;
        live |= kind == WRITE && tables_live(parts[i].pa);
    }
    if (live || options.accesses) {
        struct stamp at = stamp_of(vcpu, site);
        unsigned priv = class == CLASS_OTHER ? data_privilege(site) : site.priv;
        for (int i = 0; i < count; i++) {
            uint64_t from = i == 0 ? va : va + first;
            access_event(vcpu, &at, class, kind, priv, from, parts[i].pa, size);
        }
        if (live && site.op == OP_SC) {
            struct pending *pending = defer(vcpu, site, &at);
            memcpy(pending->parts, parts, sizeof(parts));
            pending->part_count = count;
            pending->size = size;
        } else if (live) {
            tables_store(parts, count, size, site.op == OP_AMO ? BY_AMO : BY_STORE, &at);
        }
    } else if (count == 1) {
        passes(vcpu, class, kind, va, parts[0].pa);
    }
    if (kind == WRITE && !live && count == 1) {
        filter_allow_stores(vcpu, class, harts[vcpu].mxr, va);
    }
    leave();
}

#define FAST_CALLBACK(name, class, kind)                                                          \
    static void name(unsigned vcpu, uint32_t info, uint64_t va, void *data)                       \
    {                                                                                             \
        if (__builtin_expect(!fast_hit(vcpu, class, kind, va), 0)) {                              \
            look_at(vcpu, info, va, data, kind);                                                  \
        }                                                                                         \
    }

FAST_CALLBACK(load_u, CLASS_U, READ)
FAST_CALLBACK(load_s, CLASS_S, READ)
FAST_CALLBACK(load_sum, CLASS_SUM, READ)
FAST_CALLBACK(store_u, CLASS_U, WRITE)
FAST_CALLBACK(store_s, CLASS_S, WRITE)
FAST_CALLBACK(store_sum, CLASS_SUM, WRITE)

static void load_other(unsigned vcpu, uint32_t info, uint64_t va, void *data)
{
    look_at(vcpu, info, va, data, READ);
}

static void store_other(unsigned vcpu, uint32_t info, uint64_t va, void *data)
{
    look_at(vcpu, info, va, data, WRITE);
}

/* M-mode addresses are physical. */
static void store_m(unsigned vcpu, uint32_t info, uint64_t va, void *data)
{
    if (tables_live(va) || tables_live(va + 15)) {
        look_at(vcpu, info, va, data, WRITE);
    }
}

memory_callback memory_callback_for(enum class class, enum access kind)
{
    static const memory_callback callbacks[][2] = {
        [CLASS_U] = {load_u, store_u},       [CLASS_S] = {load_s, store_s},
        [CLASS_SUM] = {load_sum, store_sum}, [CLASS_M] = {NULL, store_m},
        [CLASS_OTHER] = {load_other, store_other},
    };
    return kind == READ && !options.accesses ? NULL : callbacks[class][kind];
}

void on_fetch(unsigned vcpu, void *data)
{
    union packed_fetch packed = {.data = data};
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    struct stamp at = {.icount = counters_of(vcpu)->started,
                       .pc = reg_read(REG_PC),
                       .hart = vcpu,
                       .priv = packed.site.priv};
    uint64_t pa = (uint64_t)packed.site.page << PAGE_BITS | (at.pc & (PAGE - 1));
    unsigned first = PAGE - (at.pc & (PAGE - 1));
    access_event(vcpu, &at, packed.site.class, FETCH, at.priv, at.pc, pa, first < 4 ? 2 : 4);
    counters_of(vcpu)->fetch_page = packed.word;
    if (packed.site.straddles) {
        struct walk walk = guest_walk(harts[vcpu].satp, at.pc + first);
        if (walk.ok) {
            access_event(vcpu, &at, packed.site.class, FETCH, at.priv, at.pc + first, walk.pa, 2);
        }
        counters_of(vcpu)->fetch_page = 0;
    }
    leave();
}

/* -- traps ------------------------------------------------------------------------------------- */

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

static void page_faulted(unsigned vcpu, unsigned priv, uint64_t cause, uint64_t epc)
{
    uint64_t tval = reg_read(REG_STVAL), status = reg_read(REG_SSTATUS);
    bool virtual = priv & PRIV_VIRT || reg_read(REG_HSTATUS) >> 7 & 1;
    struct stamp at = {.icount = counters_of(vcpu)->started,
                       .pc = epc,
                       .hart = vcpu,
                       .priv = (status >> 8 & 1) | (virtual ? PRIV_VIRT : 0)};
    if (options.accesses) {
        struct event *access = emit(ACCESS, &at);
        access->a = tval;
        access->b = -1 - (int64_t)cause;
        access->sub = cause == FETCH_PAGE || cause == FETCH_GUEST_PAGE  ? FETCH
                      : cause == LOAD_PAGE || cause == LOAD_GUEST_PAGE ? READ
                                                                       : WRITE;
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

/* -- marks and limits --------------------------------------------------------------------------- */

static int label_number(const char *label)
{
    for (unsigned i = 0; i < label_count; i++) {
        if (strcmp(labels[i], label) == 0) {
            return i;
        }
    }
    labels = realloc(labels, (label_count + 1) * sizeof(*labels));
    if (!labels) {
        abort();
    }
    strcpy(labels[label_count], label);
    stream_block(BLOCK_LABEL, label, strlen(label));
    return label_count++;
}

static bool is_at(const struct limit *limit, uint64_t pc, const char *label)
{
    return (limit->kind == AT_PC && pc == limit->pc) ||
           (limit->kind == AT_MARK && label && strcmp(label, limit->label) == 0);
}

void on_place(unsigned vcpu, void *data)
{
    struct site site = ((union packed_site){.data = data}).site;
    uint64_t pc = pc_of(site);
    char text[33] = "";
    const char *label = NULL;
    if (options.mark_given && pc == options.mark &&
        (options.mark_priv == ANY_PRIVILEGE || site.priv == options.mark_priv)) {
        for (int i = 0; i < 4; i++) {
            uint64_t word = reg_read(10 + i);
            memcpy(text + 8 * i, &word, 8);
        }
        label = text;
    }
    struct stamp at = stamp_of(vcpu, site);
    if (phase == WAITING && is_at(&options.from, pc, label)) {
        pthread_mutex_lock(&lock);
        start_region(vcpu, &at);
        pthread_mutex_unlock(&lock);
    }
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    if (is_at(&options.to, pc, label)) {
        end_region(END_OF_REGION, all_instructions() - 1 - first_instruction);
        translate_anew();
    } else if (label) {
        int number = label_number(label);
        emit(MARK, &at)->a = number;
        stream_flush();
    }
    leave();
}

/* -- life --------------------------------------------------------------------------------------- */

void on_idle(uint64_t id, unsigned vcpu)
{
    static struct timespec last;
    struct timespec now;
    (void)id;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    long passed = (now.tv_sec - last.tv_sec) * 1000 + (now.tv_nsec - last.tv_nsec) / 1000000;
    if (passed > 100 && enter(vcpu)) {
        stream_flush();
        last = now;
        leave();
    }
}

bool capture_open(unsigned vcpus)
{
    hart_count = vcpus;
    if (!ram_find(options.ram_name, options.ram_base, options.ram_size) || !registers_find()) {
        return false;
    }
    tables_open(filter_tables_grew);
    filter_open(options.filter, vcpus);
    learn_vectors();
    if (phase == ACTIVE && vcpus == 1) {
        struct stamp at = stamp_now(0);
        begin_hart(0, &at);
    }
    return true;
}

void capture_close(void)
{
    pthread_mutex_lock(&lock);
    if (phase != DONE) {
        uint64_t instructions = phase == ACTIVE ? all_instructions() - first_instruction : 0;
        end_region(END_OF_MACHINE, instructions);
    }
    pthread_mutex_unlock(&lock);
}
