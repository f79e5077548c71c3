/* For RTLD_DEFAULT. */
#define _GNU_SOURCE
#include "count.h"

#include <dlfcn.h>
#include <pthread.h>

/* QEMU's variable with the running vCPU; other threads have their own, which is NULL. */
static void **current_vcpu;
/* QEMU's functions: one adds to the count what a vCPU has executed since, one returns it. */
static void (*add_executed)(void *vcpu);
static int64_t (*added_up)(void);
static pthread_t guest_thread;
static bool counts;
static int64_t before; /* of a machine that was restored, its count then */
static unsigned not_begun;
static int64_t left; /* in blocks that a wfi left */
static struct {
    int64_t count; /* with it */
    unsigned rest;
} last_wait;

void count_find(void)
{
    enum { REPLAYS = 2 }; /* QEMU's REPLAY_MODE_PLAY */
    const int *counting = dlsym(RTLD_DEFAULT, "use_icount");
    const int *mode = dlsym(RTLD_DEFAULT, "replay_mode");
    current_vcpu = dlsym(RTLD_DEFAULT, "current_cpu");
    add_executed = (void (*)(void *))dlsym(RTLD_DEFAULT, "icount_update");
    added_up = (int64_t (*)(void))dlsym(RTLD_DEFAULT, "icount_get_raw");
    guest_thread = pthread_self();
    /* A replay executes an instruction that the recording says to trap without counting it. */
    counts = counting && *counting && mode && *mode != REPLAYS && current_vcpu && add_executed &&
             added_up;
    before = counts ? qemu_count() : 0;
}

bool qemu_counts(void)
{
    return counts;
}

void in_block(unsigned rest)
{
    not_begun = rest;
}

void wait_begins(unsigned rest)
{
    in_block(rest);
    last_wait.count = qemu_count();
    last_wait.rest = rest;
    left += rest;
}

void trap_begins(void)
{
    if (last_wait.count == 0) {
        return;
    }
    if (qemu_count() < last_wait.count) {
        left -= last_wait.rest;
    }
    last_wait.count = 0;
}

int64_t left_by_waits(void)
{
    return left;
}

int64_t qemu_count(void)
{
    void *vcpu = pthread_equal(pthread_self(), guest_thread) ? *current_vcpu : NULL;
    if (!vcpu) {
        return added_up() - before - left; /* the guest has ended */
    }
    add_executed(vcpu);
    /* A vCPU may not ask within a block, because its clock would not be exact there.  We know what is
     * to be subtracted, so we ask as if we were none. */
    *current_vcpu = NULL;
    int64_t count = added_up();
    *current_vcpu = vcpu;
    return count - before - left - not_begun;
}
