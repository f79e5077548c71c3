/* A kernel that sets 5,000 marks with one label. */
        .include "bare_kernel.inc"

_start: MAP_RAM root
        SATP    root
        MARK    text_begin
        li      s0, 5000
1:      MARK    text_again
        addi    s0, s0, -1
        bnez    s0, 1b
        MARK    text_end
        POWER_OFF

        .balign 8
text_again: .dword 0x6e69616761         /* "again" */

        .bss
        .balign 4096
root:   .skip   4096
