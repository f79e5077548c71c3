#include "hart.h"

#include <string.h>

/* Whether an access is an event; the filter follows it even where accesses are none. */
static bool passes(unsigned vcpu, enum class class, enum access kind, uint64_t va, uint64_t pa)
{
    const struct hart *hart = &harts[vcpu];
    return class != CLASS_M &&
           filter_passes(vcpu, class, hart->mxr, kind, va, pa, hart->satp) && options.accesses;
}

void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
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
    event->size = size < SIZE_MORE ? size : SIZE_MORE;
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

/*
 * Whether the store switches the machine off or resets it (the values of SiFive's test device).
 * QEMU goes on until its main loop hears of it, which is sometimes later, so that what the guest
 * does meanwhile is different in every run.
 */
static bool switches_off(uint32_t info, uint64_t pa)
{
    uint16_t command = qemu_plugin_mem_get_value(info).half;
    return is_off_switch(pa) && (command == 0x5555 || command == 0x3333 || command == 0x7777);
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
        struct stamp at = live ? stamp_of(vcpu, site) : stamp_of_access(vcpu, site);
        unsigned priv = class == CLASS_OTHER ? data_privilege(site) : site.priv;
        for (int i = 0; i < count; i++) {
            uint64_t from = i == 0 ? va : va + first;
            access_event(vcpu, &at, class, kind, priv, from, parts[i].pa, parts[i].length);
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
    if (kind == WRITE && switches_off(info, parts[0].pa)) {
        machine_ends();
    } else if (kind == WRITE && !live && count == 1) {
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
    if (tables_live(va) || tables_live(va + 15) || is_off_switch(va)) {
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

/* By physical page, and the one that was fetched from last of those that share a place. */
enum { KNOWN = 1024 };
static struct known_code {
    uint64_t from; /* fetched_from */
    uint64_t va;   /* the page's virtual address then */
} known_code[MAX_HARTS][KNOWN];

void on_fetch(unsigned vcpu, void *data)
{
    struct fetch_site site = ((union packed_fetch){.data = data}).site;
    struct hart *hart = &harts[vcpu];
    struct known_code *known = &known_code[vcpu][site.page % KNOWN];
    struct hart_counters *count = counters_of(vcpu);
    unsigned length = site.wide ? 4 : 2, first = PAGE - 2 * (site.block + site.offset);
    if (!enter(vcpu)) {
        return;
    }
    if (options.filter > 1 && count->pending == 0 && length <= first &&
        known->from == fetched_from(site) &&
        filter_holds_code(vcpu, site.class, hart->mxr, known->va, site.page)) {
        hart->fetched = known->va;
        count->fetch_page = known->from;
        leave();
        return;
    }
    settle(vcpu);
    struct stamp at = {
        .icount = count->started - site.counted,
        .pc = pc_of((struct site){.block = 2 * site.block, .offset = 2 * site.offset}),
        .hart = vcpu,
        .priv = site.priv};
    hart->fetched = at.pc & -(uint64_t)PAGE;
    uint64_t pa = ram.base + ((uint64_t)(site.page - 1) << PAGE_BITS) + (at.pc & (PAGE - 1));
    access_event(vcpu, &at, site.class, FETCH, at.priv, at.pc, pa, length < first ? length : first);
    *known = (struct known_code){.from = fetched_from(site), .va = hart->fetched};
    count->fetch_page = known->from;
    if (length > first) {
        struct walk walk = guest_walk(hart->satp, at.pc + first);
        if (walk.ok) {
            access_event(vcpu, &at, site.class, FETCH, at.priv, at.pc + first, walk.pa,
                         length - first);
        }
        count->fetch_page = 0;
    }
    leave();
}
