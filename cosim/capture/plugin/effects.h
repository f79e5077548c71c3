/*
 * Records what a deferred instruction has done, before the next one executes.
 */
#ifndef COSIM_EFFECTS_H
#define COSIM_EFFECTS_H

#include "hart.h"

/* The register that the CSR names; `csr` is satp, vsatp or hgatp. */
uint64_t read_atp(unsigned csr);
/* The same for menvcfg or henvcfg. */
uint64_t read_envcfg(unsigned csr);
/* Look at the instruction's effect before the next one; the caller fills in the rest. */
struct pending *defer(unsigned vcpu, struct site site, const struct stamp *at);
/* Note what the deferred instruction will do, as far as that is sure before it runs. */
void foretell(struct pending *pending);
/* Record what the deferred instruction of the running hart has done, if there is one. */
void settle(unsigned vcpu);
/* The same when the hart's turn is over, so that its registers cannot be read.  What cannot be told
 * without them waits for its next turn. */
void settle_unseen(unsigned vcpu);

#endif
