#include "hart.h"

#include <pthread.h>

struct options options;
enum phase phase;
struct qemu_plugin_scoreboard *counters;
struct hart harts[MAX_HARTS];
unsigned hart_count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* QEMU refuses to find the counters of a hart whose thread has not begun yet; they lie in a row,
 * which moves only when a hart begins. */
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

void forget_fetched(void)
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

/* One hart has nobody to be locked against, and an event costs little more than the lock. */
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
