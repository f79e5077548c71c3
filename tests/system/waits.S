/* Waits three times for its timer, then fences and powers off at once.  M-mode at 0x80000000. */
        .globl _start
_start: la t0, trap
        csrw mtvec, t0
        li t0, 0x80
        csrw mie, t0
        li s0, 0x02004000       /* mtimecmp */
        li s1, 0x0200bff8       /* mtime */
        li s2, 3
again:  ld t0, 0(s1)
        li t1, 1000000
        add t0, t0, t1
        sd t0, 0(s0)
wait:   wfi
        li t0, -1
        sd t0, 0(s0)
        addi s2, s2, -1
        bnez s2, again
        sfence.vma
fence:  li t0, 0x100000
        li t1, 0x5555
        sw t1, 0(t0)
1:      j 1b
trap:   mret
