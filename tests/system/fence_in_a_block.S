/* A kernel that fences, and loads another root with the same ASID, without a jump in between. */
        .include "bare_kernel.inc"

_start: MAP_RAM one
        MAP_RAM other
        SV39    one
        mv      s0, t0
        SV39    other
        mv      s1, t0
        csrw    satp, s1
        sfence.vma
        MARK    text_begin
        li      s2, 20
1:      csrw    satp, s0
        sfence.vma
        nop
        csrw    satp, s1
        nop
        addi    s2, s2, -1
        bnez    s2, 1b
        MARK    text_end
        POWER_OFF

        .bss
        .balign 4096
one:    .skip   4096
other:  .skip   4096
