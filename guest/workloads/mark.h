/* Marks set by a program itself, in place of `cosim-mark`: the session begins and ends right at
   its loop.  docs/architecture.md ("Marks") has the address; the linker is told to put the
   section there (guest/workloads/programs.py). */
#ifndef MARK_H
#define MARK_H

#include <stdint.h>
#include <string.h>

asm(".pushsection .cosim_mark, \"ax\", @progbits\n"
    ".option push\n"
    ".option norvc\n"
    ".globl cosim_mark\n"
    "cosim_mark: nop\n"
    "   ret\n"
    ".option pop\n"
    ".popsection\n");

/* Set the mark LABEL (at most 32 characters). */
static void mark(const char *label)
{
    /* Too far away for a call by pc-relative address. */
    void (*at)(uint64_t, uint64_t, uint64_t, uint64_t) = (void *)0x3c05140000;
    uint64_t words[4] = {0};
    memcpy(words, label, strnlen(label, sizeof words));
    at(words[0], words[1], words[2], words[3]);
}

#endif
