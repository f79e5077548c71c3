/* Instructions that trap in each way, between fences.  The handler goes on behind them, always with the
 * same 4 instructions, so the number of instructions from fence to fence is known. */
        .option arch, +f, +d, +v
        .option norvc
        .globl  _start

        .equ    UART, 0x10000000

_start: la      t0, handler
        csrw    mtvec, t0
        li      s0, UART
        li      s1, 0x300000            /* nothing is there */
        j       first
        .balign 4
handler:
        csrr    t0, mepc
        addi    t0, t0, 4
        csrw    mepc, t0
        mret

        .macro FENCE
        sfence.vma                      /* 1 */
        .endm

        .balign 4096
first:  FENCE
        .word   0xffffffff              /* 4 for each that traps */
        FENCE
        csrr    t1, 0x5ff
        FENCE
        .half   0, 0                    /* c.unimp */
        FENCE
        ecall
        FENCE
        ebreak
        FENCE
        .option push
        .option rvc
        c.ebreak
        c.nop                           /* skipped */
        .option pop
        FENCE
        fadd.d  fa0, fa0, fa0           /* mstatus.FS is 0 */
        FENCE
        vsetvli t1, t2, e8, m1, ta, ma  /* mstatus.VS is 0 */
        FENCE
        nop                             /* in the middle of its block: 8 */
        ld      t1, 0(s1)
        nop
        nop
        FENCE
        nop                             /* a device in the middle of a block: 6 */
        lbu     t1, 5(s0)
        nop
        sb      zero, 7(s0)
        nop
        FENCE
        lui     t1, 2                   /* a rounding mode that does not exist: 9 */
        csrs    mstatus, t1
        csrwi   frm, 7
        fadd.d  fa0, fa0, fa0
        nop
        FENCE
        la      t1, behind              /* the first one behind a return: 2 and 10 */
        csrw    mepc, t1
        li      t1, 0x1800              /* 2 */
        csrs    mstatus, t1
        mret
behind: ld      t1, 0(s1)
        FENCE
        j       2f                      /* a block that ends with its page: 9 */
        .balign 4096
        .skip   4096 - 12
2:      nop
        nop
        nop
        ld      t1, 0(s1)
        FENCE
        csrci   mstatus, 8              /* a wfi in the middle of its block; an interrupt is pending: 9 */
        li      t1, 0x80
        csrw    mie, t1
        lui     t1, 0x2004
        sd      zero, 0(t1)             /* mtimecmp */
        wfi
        nop
        nop
        FENCE
        csrw    mie, zero               /* on to S-mode, where wfi is no more allowed: 16 */
        li      t1, -1
        csrw    pmpaddr0, t1
        li      t1, 0x1f
        csrw    pmpcfg0, t1
        li      t1, 0x1800              /* 2 */
        csrc    mstatus, t1
        li      t1, 0x200800            /* 2; MPP := S; TW */
        csrs    mstatus, t1
        la      t1, s_mode              /* 2 */
        csrw    mepc, t1
        mret
s_mode: FENCE
        nop                             /* 8 */
        wfi
        nop
        nop
        FENCE
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b
