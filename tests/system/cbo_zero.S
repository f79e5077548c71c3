/* A kernel that clears a block of a leaf table with cbo.zero; its firmware allows that. */
        .include "bare_kernel.inc"
        .option arch, +zicboz
        .globl  leaf

_start: MAP_RAM root
        ENTRY   root, 0, middle, 1
        ENTRY   middle, 0, leaf, 1
        SATP    root
        la      a0, leaf                /* no entry is 0 */
        li      t0, 0x100
        li      t1, 512
1:      sd      t0, 0(a0)
        addi    a0, a0, 8
        addi    t1, t1, -1
        bnez    t1, 1b
        MARK    text_begin
        la      a0, leaf
        addi    a0, a0, 1128            /* entry 141: not the first of a block */
        cbo.zero (a0)
        MARK    text_end
        POWER_OFF

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
