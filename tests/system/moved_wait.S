/* Copies a routine to a page of its own, which waits for its timer between two fences.  M-mode. */
        .globl _start, moved
_start: la t0, trap
        csrw mtvec, t0
        li t0, 0x80
        csrw mie, t0
        la t0, routine
        la t1, trap
        la t2, page
1:      lw t3, 0(t0)
        sw t3, 0(t2)
        addi t0, t0, 4
        addi t2, t2, 4
        bltu t0, t1, 1b
        fence.i
moved:  la t2, page
        jr t2

        .balign 4
routine: sfence.vma
        li s0, 0x02004000       /* mtimecmp */
        li s1, 0x0200bff8       /* mtime */
        ld t0, 0(s1)
        li t1, 1000000
        add t0, t0, t1
        sd t0, 0(s0)
        wfi
        li t0, -1
        sd t0, 0(s0)
        sfence.vma
        li t0, 0x100000
        li t1, 0x5555
        sw t1, 0(t0)
1:      j 1b
        .balign 4
trap:   mret
        .balign 4096
page:   .zero 4096
