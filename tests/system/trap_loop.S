/* S-mode whose leaf has A=D=0: with Svade each fetch faults, that of the trap vector too.  Before that
 * it stores to its table and fences, in M-mode. */
        .globl _start, strap
_start: la t0, mtrap
        csrw mtvec, t0
        li t0, -1
        csrw pmpaddr0, t0
        li t0, 0x1f
        csrw pmpcfg0, t0
        li t0, 0xb109
        csrw medeleg, t0
        la t0, root
        li t1, (0x80000000>>2)|0x0f     /* V R W X, A=D=0 */
        sd t1, 16(t0)
        srli t0, t0, 12
        li t1, 8<<60
        or t0, t0, t1
        csrw satp, t0
        sfence.vma
        la t1, strap
        csrw stvec, t1
        li t1, 1<<11
        csrs mstatus, t1
        la t1, smode
        csrw mepc, t1
        mret
smode:  nop
1:      j 1b
        .balign 4
strap:  j strap
mtrap:  j mtrap
        .balign 4096
root:   .zero 4096
