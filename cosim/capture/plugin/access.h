/*
 * Accesses: which of them become events.
 */
#ifndef COSIM_ACCESS_H
#define COSIM_ACCESS_H

#include "event.h"
#include "filter.h"
#include "stream.h"

/* Tell the filter of an access.  Return true if it is to be an event; the filter follows accesses
 * even if none become events. */
bool access_passes(unsigned vcpu, enum class class, enum access kind, uint64_t va, uint64_t pa);
/* The same, and if the access passes, add its event.  `pa` is QEMU's. */
void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
                  unsigned priv, uint64_t va, uint64_t pa, unsigned size);

#endif
