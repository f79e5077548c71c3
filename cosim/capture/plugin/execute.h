/*
 * Instructions that are looked at when they execute: fences, CSR writes, cbo.zero, returns.
 */
#ifndef COSIM_EXECUTE_H
#define COSIM_EXECUTE_H

void on_execute(unsigned vcpu, void *data); /* before the instruction */
void on_next(unsigned vcpu, void *data);    /* before the instruction after a deferred one */

#endif
