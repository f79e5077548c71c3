/* Jumps and fences that a CPU without C and Zifencei finds at fault, between fences: 5 from each to the
 * next, with the 4 of the handler.  M-mode at 0x80000000 (-bios none). */
        .option norvc
        .globl  _start

_start: la      t0, handler
        csrw    mtvec, t0
        sfence.vma
        .half   0xa001, 1               /* c.j */
        sfence.vma
        .half   0xc001, 1               /* c.beqz */
        sfence.vma
        .half   0x8082, 1               /* c.jr */
        sfence.vma
        .word   0x0000100f              /* fence.i */
        sfence.vma
        .word   0x00000363              /* beq, to half an instruction */
        sfence.vma
        .word   0x0060006f              /* jal */
        sfence.vma
        jalr    zero, 2(t0)
        sfence.vma
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b

        .balign 4
handler:
        csrr    t0, mepc
        addi    t0, t0, 4
        csrw    mepc, t0
        mret
