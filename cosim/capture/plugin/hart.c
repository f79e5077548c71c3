#include "hart.h"

#include "count.h"
#include "filter.h"
#include "options.h"
#include "processes.h"
#include "stream.h"
#include "translation.h"

enum phase phase;
struct qemu_plugin_scoreboard *counters;
struct hart harts[MAX_HARTS];
unsigned hart_count;
unsigned running;

static struct hart_counters of_several;
struct hart_counters *now = &of_several;
static uint64_t turn_began; /* all_instructions() then */

void find_counters(void)
{
    now = qemu_plugin_scoreboard_find(counters, 0);
}

static uint64_t calls_of_all(void)
{
    uint64_t sum = 0;
    for (unsigned hart = 0; hart < hart_count; hart++) {
        sum += harts[hart].calls;
    }
    return sum;
}

int64_t all_instructions(void)
{
    return qemu_counts() ? qemu_count() - (int64_t)calls_of_all() : (int64_t)now->started;
}

uint64_t executed_by(unsigned vcpu)
{
    uint64_t turn = vcpu == running ? all_instructions() - turn_began : 0;
    return harts[vcpu].executed + turn;
}

void uncount(void)
{
    now->started--;
}

void set_waits(bool waits)
{
    harts[running].waits = waits;
    now->pending = waits;
}

void set_fetched(uint64_t from)
{
    now->fetch_page = from;
}

void hart_runs(unsigned hart)
{
    running = hart;
    filter_take_turns(hart);
}

void take_turns(unsigned next)
{
    harts[running].executed = executed_by(running);
    turn_began = all_instructions();
    hart_runs(next);
    set_waits(harts[next].waits);
    set_fetched(0);
}

int64_t qemu_instructions(void)
{
    return all_instructions() + calls_of_all() + left_by_waits();
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
    if (options.accesses) {
        set_fetched(0);
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
    processes_open();
}

/* QEMU keeps env.pc at the block's first instruction or a later one.  A block is shorter than a
 * page, so the offset tells which. */
uint64_t pc_of(struct site site)
{
    uint64_t pc = reg_read(REG_PC);
    return pc - ((pc - 2 * site.block) & (PAGE - 1)) + 2 * site.offset;
}

struct stamp stamp_of(unsigned vcpu, struct site site)
{
    return (struct stamp){.icount = all_instructions() - 1,
                          .pc = pc_of(site),
                          .hart = vcpu,
                          .priv = site.priv};
}

struct stamp stamp_of_access(unsigned vcpu, struct site site)
{
    return (struct stamp){.icount = all_instructions() - 1,
                          .pc = harts[vcpu].fetched + 2 * (site.block + site.offset),
                          .hart = vcpu,
                          .priv = site.priv};
}

struct stamp stamp_now(unsigned vcpu)
{
    return (struct stamp){.icount = all_instructions(),
                          .pc = reg_read(REG_PC),
                          .hart = vcpu,
                          .priv = reg_read(REG_PRIV)};
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
    uint32_t process = process_loaded(hart->satp);
    tables_load_root(hart->satp, at);
    struct event *event = emit(KIND_SATP_WRITE, at);
    event->a = event->b = hart->satp;
    event->c = process;
    event->flags = FLAG_STOP;
    begin_envcfg(vcpu, ENVCFG_MENVCFG, REG_MENVCFG, at);
    begin_envcfg(vcpu, ENVCFG_HENVCFG, REG_HENVCFG, at);
}

/* What `enter` seldom does is not inlined, so that what it does each time stays short. */
__attribute__((noinline)) static void reader_is_gone(void)
{
    phase = DONE;
    translate_anew();
}

__attribute__((noinline)) static void begin_hart_now(unsigned vcpu)
{
    if (!(reg_read(REG_PRIV) & PRIV_VIRT)) {
        struct stamp at = stamp_now(vcpu);
        begin_hart(vcpu, &at);
    }
}

bool enter(unsigned vcpu)
{
    if (phase != ACTIVE) {
        return false;
    }
    if (!stream_is_open()) {
        reader_is_gone();
        return false;
    }
    if (!harts[vcpu].begun) {
        begin_hart_now(vcpu);
    }
    return true;
}
