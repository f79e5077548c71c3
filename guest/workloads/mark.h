/* For a program that sets its marks itself instead of calling `cosim-mark`, so that the session
   begins and ends right at its loop.  Compile with
     -DMARK_ADDRESS=A -Wl,--section-start=.cosim_mark=A
   where A is the address in docs/architecture.md, "Marks". */
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
    /* The section is too far away for a pc-relative call. */
    void (*at)(uint64_t, uint64_t, uint64_t, uint64_t) = (void *)MARK_ADDRESS;
    uint64_t words[4] = {0};
    memcpy(words, label, strnlen(label, sizeof words));
    at(words[0], words[1], words[2], words[3]);
}

#endif
