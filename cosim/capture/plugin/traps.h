/*
 * Traps, and returns from them.
 */
#ifndef COSIM_TRAPS_H
#define COSIM_TRAPS_H

#include "site.h"

/* An sret or mret is about to execute. */
void return_begins(unsigned vcpu, struct site site);
/* A block that may be the first of a trap handler begins. */
void on_enter(unsigned vcpu, void *data);

#endif
