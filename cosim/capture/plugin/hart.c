#include "hart.h"

#include "filter.h"
#include "options.h"
#include "stream.h"
#include "translation.h"

#include <pthread.h>
enum phase phase;
struct qemu_plugin_scoreboard *counters;
struct hart harts[MAX_HARTS];
unsigned hart_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* QEMU does not find the counters of a hart whose thread has not begun yet.  All counters lie in
 * one row, which moves only when a hart begins. */
static struct hart_counters *row;

void find_counters(void)
{
    row = qemu_plugin_scoreboard_find(counters, 0);
}

struct hart_counters *counters_of(unsigned vcpu)
{
    return &row[vcpu];
}

int64_t all_instructions(void)
{
    int64_t sum = 0;
    for (unsigned hart = 0; hart < hart_count; hart++) {
        sum += counters_of(hart)->started;
    }
    return sum;
}

int64_t qemu_instructions(void)
{
    int64_t sum = all_instructions();
    for (unsigned hart = 0; hart < hart_count; hart++) {
        sum += harts[hart].calls;
    }
    return sum;
}

static bool is_loaded_root(uint64_t page)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        if (atp_levels(harts[hart].satp) && atp_root(harts[hart].satp) == page) {
            return true;
        }
    }
    return false;
}

void forget_fetched(void)
{
    for (unsigned hart = 0; options.accesses && hart < hart_count; hart++) {
        counters_of(hart)->fetch_page = 0;
    }
}

static void entry_written(uint64_t entry, unsigned levels, uint64_t old)
{
    filter_pte_written(entry, levels, old);
    forget_fetched();
}

void harts_open(unsigned count)
{
    hart_count = count;
    for (unsigned hart = 0; hart < count; hart++) {
        harts[hart].envcfg[ENVCFG_MENVCFG] = options.paging & options.switches;
    }
    tables_open((struct tables_hooks){.grown = filter_tables_grew,
                                      .is_loaded_root = is_loaded_root,
                                      .mmu_sets_ad = mmu_sets_ad,
                                      .entry_written = entry_written});
    filter_open(options.filter, count);
}

/* QEMU keeps env.pc at the block's first instruction or a later one.  A block is shorter than a
 * page, so the offset tells which. */
uint64_t pc_of(struct site site)
{
    uint64_t pc = reg_read(REG_PC);
    return pc - ((pc - site.block) & (PAGE - 1)) + site.offset;
}

struct stamp stamp_of(unsigned vcpu, struct site site)
{
    return (struct stamp){.icount = counters_of(vcpu)->started - 1,
                          .pc = pc_of(site),
                          .hart = vcpu,
                          .priv = site.priv};
}

struct stamp stamp_of_access(unsigned vcpu, struct site site)
{
    return (struct stamp){.icount = counters_of(vcpu)->started - 1,
                          .pc = harts[vcpu].fetched + site.block + site.offset,
                          .hart = vcpu,
                          .priv = site.priv};
}

struct stamp stamp_now(unsigned vcpu)
{
    return (struct stamp){.icount = counters_of(vcpu)->started,
                          .pc = reg_read(REG_PC),
                          .hart = vcpu,
                          .priv = reg_read(REG_PRIV)};
}

/* A single hart needs no lock, and the lock costs nearly as much as an event. */
void lock_harts(void)
{
    if (hart_count > 1) {
        pthread_mutex_lock(&lock);
    }
}

void leave(void)
{
    if (hart_count > 1) {
        pthread_mutex_unlock(&lock);
    }
}

bool envcfg_is(unsigned vcpu, enum envcfg which, uint64_t value)
{
    uint64_t *known = &harts[vcpu].envcfg[which];
    bool moved = ((value ^ *known) & options.switches) != 0;
    *known = value & options.switches;
    return moved;
}

bool mmu_sets_ad(void)
{
    uint64_t on = options.paging & ~options.switches;
    for (unsigned hart = 0; hart < hart_count; hart++) {
        on |= harts[hart].envcfg[ENVCFG_MENVCFG];
    }
    return on & ENVCFG_ADUE;
}

/* Tell what menvcfg or henvcfg holds, unless it is what the hart has after reset. */
static void begin_envcfg(unsigned vcpu, enum envcfg which, enum reg reg, const struct stamp *at)
{
    uint64_t value = options.switches ? reg_read(reg) : 0;
    if (envcfg_is(vcpu, which, value)) {
        struct event *event = emit(KIND_ENVCFG_WRITE, at);
        event->a = event->b = value;
        event->c = options.switches;
        event->sub = which;
        event->flags = FLAG_STOP;
    }
}

void begin_hart(unsigned vcpu, const struct stamp *at)
{
    struct hart *hart = &harts[vcpu];
    hart->begun = true;
    hart->satp = reg_read(REG_SATP);
    hart->mxr = reg_read(REG_SSTATUS) >> 19 & 1;
    tables_load_root(hart->satp, at);
    struct event *event = emit(KIND_SATP_WRITE, at);
    event->a = event->b = hart->satp;
    event->flags = FLAG_STOP;
    begin_envcfg(vcpu, ENVCFG_MENVCFG, REG_MENVCFG, at);
    begin_envcfg(vcpu, ENVCFG_HENVCFG, REG_HENVCFG, at);
}

bool enter(unsigned vcpu)
{
    if (phase != ACTIVE) {
        return false;
    }
    lock_harts();
    if (phase == ACTIVE && stream_is_open()) {
        if (!harts[vcpu].begun && !(reg_read(REG_PRIV) & PRIV_VIRT)) {
            struct stamp at = stamp_now(vcpu);
            begin_hart(vcpu, &at);
        }
        return true;
    }
    if (phase == ACTIVE) {
        phase = DONE;
        translate_anew();
    }
    leave();
    return false;
}
