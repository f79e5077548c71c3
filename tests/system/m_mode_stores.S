/* Table stores that are not translated, or through MPRV; then S-mode under TVM. */
        .globl _start
_start: la t0, 1f
        csrw mtvec, t0
        li t0, -1
        csrw pmpaddr0, t0
        li t0, 0x1f
        csrw pmpcfg0, t0
        la t0, root
        li t1, (0x80000000>>2)|0xcf
        sd t1, 8(t0)            /* VA 0x40000000 -> 0x80000000; no identity map */
        srli t0, t0, 12
        li t1, 8<<60
        or t0, t0, t1
        csrw satp, t0
        sfence.vma
        la a0, root
        li a1, 0x1234
phys:   sd a1, 64(a0)
        li t0, 0x40000000
        sub a2, a0, t0
        li t1, (1<<17)|(1<<11)
        csrs mstatus, t1
virt:   sd a1, 72(a2)
        li t1, 1<<17
        csrc mstatus, t1
        sfence.vma
        /* S-mode with TVM: the writes trap to 1f */
        li t1, (1<<20)|(1<<11)
        csrs mstatus, t1
        li t1, (0x80000000>>2)|0xcf
        sd t1, 16(a0)
        sfence.vma
        la t1, smode
        csrw mepc, t1
        mret
smode:  sd a1, 80(a0)
        csrw satp, zero
        .balign 4
1:      li t0, 0x100000
        li t1, 0x5555
        sw t1, 0(t0)
2:      j 2b
        .balign 4096
root:   .zero 4096
