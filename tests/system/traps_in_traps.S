/* Traps right behind a return, and of the first instruction at a trap's vector.  The comments say how many
 * instructions retire.  M-mode at 0x80000000 (-bios none). */
        .option arch, +h
        .option norvc
        .globl  _start

        .macro FENCE
        sfence.vma                      /* 1 */
        .endm

_start: la      t0, handler
        csrw    mtvec, t0
        la      t0, fences
        csrw    stvec, t0
        li      t0, 0x120               /* access faults of loads and calls of U-mode go to S-mode */
        csrw    medeleg, t0
        li      t0, -1
        csrw    pmpaddr0, t0
        li      t0, 0x1f
        csrw    pmpcfg0, t0
        li      s1, 0x300000            /* nothing is there */
        FENCE
        li      t0, 0x1800              /* to an instruction with the return's offset in its page: 14 */
        csrs    mstatus, t0
        la      t0, target
        csrw    mepc, t0
        j       from
back:   FENCE
        hlvx.wu t1, (s1)                /* which QEMU takes for a fetch: 5 */
        FENCE
        li      t0, 0x1800              /* 18 from here to behind the load */
        csrc    mstatus, t0
        li      t0, 0x100800            /* MPP := S; TVM */
        csrs    mstatus, t0
        la      t0, s_mode
        csrw    mepc, t0
        mret
s_mode: ld      t1, 0(s1)               /* the vector's first instruction traps, too */
        la      t0, reads               /* 23 from here to the end */
        csrw    stvec, t0
        li      t0, 0x100
        csrc    sstatus, t0
        la      t0, u_mode
        csrw    sepc, t0
        sret

        .balign 4
handler:
        csrr    t0, mepc                /* 4 */
        addi    t0, t0, 4
        csrw    mepc, t0
        mret

        .balign 4
fences: sfence.vma
skip:   csrr    t0, sepc                /* 4 */
        addi    t0, t0, 4
        csrw    sepc, t0
        sret

        .balign 4096
        .skip   256
from:   mret
        .balign 4096
        .skip   256
target: ld      t1, 0(s1)
        j       back
        .balign 4096
        .skip   252
u_mode: nop
        ecall                           /* at its vector's offset */
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b
        .balign 4096
        .skip   256
reads:  csrr    t0, satp
        j       skip
