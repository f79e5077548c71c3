/*
 * Several harts take turns in one thread.  Finds out when the next one runs.
 */
#ifndef COSIM_TURNS_H
#define COSIM_TURNS_H

/* Before each block, if there are several harts: turns change only between blocks. */
void on_block(unsigned vcpu, void *data);
/* So many instructions begin. */
void on_count(unsigned vcpu, void *data);

#endif
