/*
 * Remote fences: what the guest asks of its firmware (SBI), for several harts.
 *
 * An event tells of the call when it returns.  Each hart that it names executes the fence at some
 * time before that, and what it uses meanwhile may be older.
 */
#ifndef COSIM_CALLS_H
#define COSIM_CALLS_H

#include "site.h"

#include <stdbool.h>

/* Return true if calls are followed: they reach firmware, and there are other harts. */
bool calls_are_followed(void);
/* Before an ecall in S-mode. */
void on_call(unsigned vcpu, void *data);
/* The firmware is about to return to S-mode, by mret. */
void call_returns(unsigned vcpu);

#endif
