/* A kernel whose cbo.zero clears the entry that maps the block. */
        .include "bare_kernel.inc"
        .option arch, +zicboz
        .globl  leaf

_start: MAP_RAM root
        ENTRY   root, 0, middle, 1
        ENTRY   middle, 0, leaf, 1
        ENTRY   leaf, 141, leaf, KERNEL
        SATP    root
        MARK    text_begin
        li      a0, 141 << 12 | 141 * 8
        cbo.zero (a0)
        MARK    text_end
        POWER_OFF

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
