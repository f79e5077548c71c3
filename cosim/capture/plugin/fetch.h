/*
 * Instruction fetches.
 */
#ifndef COSIM_FETCH_H
#define COSIM_FETCH_H

/* The page fetched from has changed, or there is no filter. */
void on_fetch(unsigned vcpu, void *data);
/* The same if the page has changed, of several harts. */
void on_fetch_elsewhere(unsigned vcpu, void *data);

#endif
