/* A kernel that stores to the same entries of its table, and fences, again and again, some
 * instructions apart. */
        .include "bare_kernel.inc"

_start: MAP_RAM root
        SATP    root
        la      s0, root
        MARK    text_begin
        li      s1, 20
1:      slli    s2, s1, 10
        sd      s2, 64(s0)
        .rept   5
        nop
        .endr
        sd      s2, 72(s0)
        .rept   5
        nop
        .endr
        sfence.vma
        .rept   5
        nop
        .endr
        addi    s1, s1, -1
        bnez    s1, 1b
        MARK    text_end
        POWER_OFF

        .bss
        .balign 4096
root:   .skip   4096
