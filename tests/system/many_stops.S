/* S-mode on OpenSBI: 200,000 times a store to its table and a fence. */
        .include "bare_kernel.inc"

_start: MAP_RAM root
        SATP    root
        la      s0, root
        li      s1, 200000
1:      sd      zero, 0(s0)
        sfence.vma
        addi    s1, s1, -1
        bnez    s1, 1b
        POWER_OFF
2:      j       2b

        .bss
        .balign 4096
root:   .skip   4096
