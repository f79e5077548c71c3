/*
 * Traps, and returns from them.
 */
#ifndef COSIM_TRAPS_H
#define COSIM_TRAPS_H

#include "site.h"

/* An sret or mret is about to execute. */
void return_begins(unsigned vcpu, struct site site);
/* If QEMU counts: an instruction of which it may count that it traps is about to end its block. */
void on_last(unsigned vcpu, void *data);
/* The same for a wfi in the middle of its block. */
void on_wait(unsigned vcpu, void *data);
/* A block that may be the first of a trap handler begins. */
void on_enter(unsigned vcpu, void *data);

#endif
