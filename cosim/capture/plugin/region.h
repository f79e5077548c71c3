/*
 * Where the recorded region begins and ends, and marks.
 */
#ifndef COSIM_REGION_H
#define COSIM_REGION_H

#include "hart.h"

/* Called when the first code is translated; false if guest RAM or a register is not found. */
bool capture_open(unsigned harts);
void capture_close(void);
/* The running instruction ends the machine; with the lock held. */
void machine_ends(const struct stamp *at);
/* An instruction trapped that QEMU's own count includes; with or without the lock, since only a
 * single hart is recorded. */
void note_call(void);
/* A return from a trap: the place to look for requests of the tool. */
void take_requests(unsigned vcpu, struct site site);
/* A trap has been taken: end here if the tool has asked for it.  QEMU may not hear it for seconds if
 * its guest traps all the time. */
void take_stop(unsigned vcpu);

void on_place(unsigned vcpu, void *data); /* before an instruction that may be a mark or a limit */
void on_idle(uint64_t id, unsigned vcpu);

#endif
