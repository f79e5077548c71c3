#include "memory.h"

#include "access.h"
#include "count.h"
#include "effects.h"
#include "guest.h"
#include "hart.h"
#include "options.h"
#include "region.h"
#include "tables.h"

#include <string.h>

/* The privilege that a data access of CLASS_OTHER is translated with. */
static unsigned data_privilege(struct site site)
{
    if (site.op == OP_GUEST) {
        return PRIV_VIRT | (reg_read(REG_HSTATUS) >> 8 & 1); /* SPVP, from whatever privilege */
    }
    if (site.priv == PRIV_M) {
        uint64_t status = reg_read(REG_MSTATUS); /* MPRV: MPP and MPV */
        return (status >> 11 & 3) | (status >> 39 & 1 ? PRIV_VIRT : 0);
    }
    return site.priv;
}

/*
 * Return true if the store switches the machine off or resets it (the values of SiFive's test
 * device).  QEMU goes on until its main loop hears of it.  What the guest does until then differs
 * from run to run, so the capture ends at the store.
 */
static bool switches_off(uint32_t info, uint64_t pa)
{
    uint16_t command = qemu_plugin_mem_get_value(info).half;
    return is_off_switch(pa) && (command == 0x5555 || command == 0x3333 || command == 0x7777);
}

/* Return true if the access is a further one of a vector store that waits to be looked at. */
static bool is_further_element(unsigned vcpu, struct site site)
{
    const struct pending *pending = &harts[vcpu].pending;
    return site.op == OP_VSTORE && harts[vcpu].waits && pending->op == OP_VSTORE &&
           pending->at.icount == all_instructions() - 1;
}

/* Its first parameters are those of the callbacks, which then need not move them.  "Used" keeps the
 * compiler from leaving one out. */
__attribute__((used)) static void look_at(unsigned given, uint32_t info, uint64_t va, void *data,
                                          enum access kind)
{
    (void)given;
    unsigned vcpu = running;
    struct site site = ((union packed_site){.data = data}).site;
    in_block(site.rest);
    if (!enter(vcpu)) {
        return;
    }
    if (!is_further_element(vcpu, site)) {
        settle(vcpu);
    }
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
        live |= kind == ACCESS_WRITE && tables_live(parts[i].pa);
    }
    if (live || options.accesses) {
        /* Fetches of M-mode are not looked at, so the last one does not tell its pc. */
        bool asks = live || site.priv == PRIV_M;
        struct stamp at = asks ? stamp_of(vcpu, site) : stamp_of_access(vcpu, site);
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
        } else if (live && site.op == OP_VSTORE) {
            if (!is_further_element(vcpu, site)) {
                defer(vcpu, site, &at);
            }
        } else if (live) {
            tables_store(parts, count, size, site.op == OP_AMO ? PTE_OP_AMO : PTE_OP_STORE, &at);
        }
    } else if (count == 1) {
        access_passes(vcpu, class, kind, va, parts[0].pa);
    }
    if (kind == ACCESS_WRITE && switches_off(info, parts[0].pa)) {
        struct stamp at = stamp_of(vcpu, site);
        machine_ends(&at);
    } else if (kind == ACCESS_WRITE && !live && count == 1) {
        filter_allow_stores(vcpu, class, harts[vcpu].mxr, va);
    }
}

#define FAST_CALLBACK(name, class, kind)                                                          \
    static void name(unsigned given, uint32_t info, uint64_t va, void *data)                      \
    {                                                                                             \
        if (__builtin_expect(!fast_hit(class, kind, va), 0)) {                                    \
            look_at(given, info, va, data, kind);                                                 \
        }                                                                                         \
    }

FAST_CALLBACK(load_u, CLASS_U, ACCESS_READ)
FAST_CALLBACK(load_s, CLASS_S, ACCESS_READ)
FAST_CALLBACK(load_sum, CLASS_SUM, ACCESS_READ)
FAST_CALLBACK(store_u, CLASS_U, ACCESS_WRITE)
FAST_CALLBACK(store_s, CLASS_S, ACCESS_WRITE)
FAST_CALLBACK(store_sum, CLASS_SUM, ACCESS_WRITE)

static void load_other(unsigned given, uint32_t info, uint64_t va, void *data)
{
    look_at(given, info, va, data, ACCESS_READ);
}

static void store_other(unsigned given, uint32_t info, uint64_t va, void *data)
{
    look_at(given, info, va, data, ACCESS_WRITE);
}

/* M-mode addresses are physical. */
static void store_m(unsigned given, uint32_t info, uint64_t va, void *data)
{
    if (tables_live(va) || tables_live(va + 15) || is_off_switch(va)) {
        look_at(given, info, va, data, ACCESS_WRITE);
    }
}

memory_callback memory_callback_for(enum class class, enum access kind)
{
    static const memory_callback callbacks[][2] = {
        [CLASS_U] = {load_u, store_u},       [CLASS_S] = {load_s, store_s},
        [CLASS_SUM] = {load_sum, store_sum}, [CLASS_M] = {NULL, store_m},
        [CLASS_OTHER] = {load_other, store_other},
    };
    return kind == ACCESS_READ && !options.accesses ? NULL : callbacks[class][kind];
}
