/* What the scenarios have at hand. */
#ifndef KERNEL_H
#define KERNEL_H

#include "riscv.h"

/* Console (console.c).  say() takes %s, %d, %x. */
void say(const char *format, ...);
void power_off(void) __attribute__((noreturn));

/* Options of the command line (options.c): NAME=VALUE words. */
void read_options(const u8 *device_tree);
const char *option(const char *name, const char *otherwise);
u64 number(const char *name, u64 otherwise);
int same(const char *a, const char *b);
/* Whether NAME is among the words of LIST, which commas separate. */
int listed(const char *list, const char *name);

/* Marks: label at most 32 characters. */
void mark(const char *label);

/* Traps (trap.c). */
struct frame {
    u64 x[32], pc;
};
/* Called at a page fault, with its cause; nonzero: the cause is gone, try again. */
extern int (*fault_handler)(u64 cause, u64 va);
/* Access VA and give the cause of the trap that it took, or 0.  A trapping access is skipped. */
u64 probe_load(u64 va);
u64 probe_store(u64 va, u64 value);
u64 probe_fetch(u64 va);
/* Run DO_IT(ARGUMENT), one instruction that may be missing; 0 or the cause of its trap. */
u64 probe(void (*do_it)(u64 argument), u64 argument);
/* Run user code at PC with the stack SP and one argument until it does ecall; its a0. */
u64 enter_user(u64 pc, u64 sp, u64 argument);

/* The scenario's verdict: a false CONDITION is a failure of the guest itself. */
void check(int condition, const char *what);

#endif
