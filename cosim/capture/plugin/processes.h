/*
 * Which process of Linux owns an address space, by the kernel's list of all processes in RAM.  What
 * this does and why is in cosim/capture/processes.py, which does the same for gdb.
 */
#ifndef COSIM_PROCESSES_H
#define COSIM_PROCESSES_H

#include <stdint.h>

void processes_open(void);
/* The number of the address space that `satp` has loaded; 0 if no process owns it. */
uint32_t process_loaded(uint64_t satp);
/* A hart is about to leave the address space of `satp`: it may have another name by now. */
void process_leaves(uint64_t satp);

#endif
