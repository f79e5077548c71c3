/* What the scenarios use. */
#ifndef KERNEL_H
#define KERNEL_H

#include "riscv.h"

/* Console (console.c).  say() knows %s, %d and %x. */
void say(const char *format, ...);
void power_off(void) __attribute__((noreturn));

/* Call the firmware (SBI); return its error, 0 if there is none. */
u64 sbi_call(u64 extension, u64 function, const u64 arguments[5]);
/* The hart that runs the kernel. */
extern u64 this_hart;

/* Options of the command line (options.c): NAME=VALUE words. */
void read_options(const u8 *device_tree);
const char *option(const char *name, const char *otherwise);
u64 number(const char *name, u64 otherwise);
int same(const char *a, const char *b);
/* Return 1 if NAME is a word of LIST, whose words are separated by commas. */
int listed(const char *list, const char *name);

/* Set the mark LABEL (at most 32 characters). */
void mark(const char *label);

/* Traps (trap.c). */
struct frame {
    u64 x[32], pc;
};
/* Called at a page fault with its cause and address.  It returns 1 if the access can be tried
   again. */
extern int (*fault_handler)(u64 cause, u64 va);
/* Access VA; return the cause of the trap that this took, or 0.  A trapping access is skipped. */
u64 probe_load(u64 va);
u64 probe_store(u64 va, u64 value);
u64 probe_fetch(u64 va);
/* Run DO_IT(ARGUMENT), whose instructions this hart may not have; return the cause of the trap, or
   0. */
u64 probe(void (*do_it)(u64 argument), u64 argument);
/* Run user code at PC, with the stack SP and one argument, until its ecall; return its a0. */
u64 enter_user(u64 pc, u64 sp, u64 argument);

/* Count a failure and say WHAT failed if CONDITION is false. */
void check(int condition, const char *what);

#endif
