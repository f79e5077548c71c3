/* Is busy for ever, in a page that also has a wait and a fence.  M-mode at 0x80000000. */
        .globl _start, never
_start: addi t0, t0, 1
        j _start
never:  sfence.vma
        wfi
