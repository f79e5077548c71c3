/*
 * Where traps may enter: the values that stvec and mtvec have had.
 */
#ifndef COSIM_VECTORS_H
#define COSIM_VECTORS_H

#include "site.h"

#include <stdbool.h>

/* Return true if a trap may enter at a block that begins at this offset in its page. */
bool may_be_vector(uint64_t va);
/* Learn the vectors that the running hart has set already. */
void learn_vectors(void);
/* The instruction at `site` is about to write a vector register. */
void vector_begins(struct site site);

#endif
