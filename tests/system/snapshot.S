/* Sets two timers, prints, waits for both, reads a byte from the UART, and powers off.  Each step ends
   with a fence.  M-mode at 0x80000000. */
        .globl _start, waiting
_start: li t0, 1 << 63
        csrs 0x30a, t0          /* menvcfg.STCE */
        li t0, 0xa0             /* STIE, MTIE */
        csrw mie, t0
        li s0, 0x02004000       /* mtimecmp */
        li s1, 0x0200bff8       /* mtime */
        li s2, 0x10000000       /* UART */
        la s3, ready
1:      lbu t0, 0(s3)
        beqz t0, 2f
        sb t0, 0(s2)
        addi s3, s3, 1
        j 1b
2:      ld t0, 0(s1)
        li t1, 200000
        add t0, t0, t1
        csrw 0x14d, t0          /* stimecmp */
        add t0, t0, t1
        sd t0, 0(s0)
waiting:
        sfence.vma
1:      wfi
        csrr t0, mip
        andi t0, t0, 0x20
        beqz t0, 1b
        li t0, -1
        csrw 0x14d, t0
        sfence.vma
1:      wfi
        csrr t0, mip
        andi t0, t0, 0x80
        beqz t0, 1b
        sfence.vma
1:      lbu t0, 5(s2)           /* is there a byte? */
        andi t0, t0, 1
        beqz t0, 1b
        lbu t0, 0(s2)
        sb t0, 0(s2)
        sfence.vma
        li t0, 0x100000
        li t1, 0x5555
        sw t1, 0(t0)
1:      j 1b
ready:  .asciz "ready> "
