/*
 * Instruction fetches.
 */
#ifndef COSIM_FETCH_H
#define COSIM_FETCH_H

/* An instruction was fetched.  Look at it, whatever is known. */
void on_fetch(unsigned vcpu, void *data);
/* The same if it lies in another page than the one before. */
void on_other_page(unsigned vcpu, void *data);
/* One of several harts fetched an instruction, perhaps in another page. */
void on_fetch_of_several(unsigned vcpu, void *data);

#endif
