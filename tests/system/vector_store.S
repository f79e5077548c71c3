/* A kernel that writes entries of a live table with vector stores. */
        .include "bare_kernel.inc"
        .option arch, +v
        .globl  leaf

_start: MAP_RAM root
        ENTRY   root, 0, middle, 1
        ENTRY   middle, 0, leaf, 1
        ENTRY   leaf, 20, page, KERNEL
        SATP    root
        li      t0, 1 << 9              /* sstatus.VS */
        csrs    sstatus, t0
        la      s0, values
        la      s1, leaf
        MARK    text_begin
        vsetivli zero, 16, e8, m1, ta, ma
        vle8.v  v1, (s0)
        addi    a0, s1, 8 * 10
        vse8.v  v1, (a0)                /* entries 10 and 11, byte by byte */
        vsetivli zero, 2, e64, m1, ta, ma
        addi    a0, s1, 8 * 12
        vse64.v v1, (a0)                /* entries 12 and 13 */
        li      t0, 64
        addi    a0, s1, 8 * 4
        vsse64.v v1, (a0), t0           /* entries 4 and 12: the second holds another value */
        vse64.v v1, (a0)                /* entry 5 only: entry 4 has its value */
        sfence.vma
        MARK    text_end
        POWER_OFF

        .balign 8
values: .dword  0x100, 0x200

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
page:   .skip   4096
