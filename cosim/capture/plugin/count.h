/*
 * The count of instructions that QEMU keeps itself.
 */
#ifndef COSIM_COUNT_H
#define COSIM_COUNT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * QEMU counts the instructions of a run that it records (-icount), and if it was built with modules,
 * its count can be read.  Then the code of the guest need not count.  When a block begins, QEMU adds all
 * its instructions at once, and when it ends early, by an exception or at a device, it takes back those
 * that were not executed.  So within a block those that are yet to begin must be subtracted.
 */

/* Find out if QEMU counts, and shows it.  Call it in the thread that runs the guest, before the first
 * instruction of its only hart.  If it is not called, QEMU does not count. */
void count_find(void);
bool qemu_counts(void);
/* A callback asks for counts from here on: so many instructions of the running block have not begun. */
void in_block(unsigned rest);
/* A wfi begins, behind which its block has so many instructions.  It leaves the block, and QEMU does not
 * take them back. */
void wait_begins(unsigned rest);
/* How many instructions those were so far.  qemu_count() does not include them. */
int64_t left_by_waits(void);
/* A trap was taken: of the wfi that began last, or later. */
void trap_begins(void);
/* Instructions that have begun since then, as QEMU counts them (only if it does). */
int64_t qemu_count(void);

#endif
