/* What the TCG plugin must see, instruction by instruction; test_plugin.py knows the answers.
 *
 * Runs in M-mode from 0x80000000 (-bios none), then in S-mode under Sv39: the root maps RAM as one
 * 1 GiB leaf, and its entry 0 leads to a middle and a leaf table for virtual page 0. */
        .include "m_mode.inc"
        .option arch, +v, +h
        .globl root, middle, leaf, beside

_start: la      sp, stack_end
        la      t0, m_trap
        csrw    mtvec, t0
        OPEN_TO_S
        la      t0, s_trap
        csrw    stvec, t0
        TABLES
        la      t0, leaf                /* the test device, to power off */
        li      t1, (0x100000 >> 2) | 0xc7
        li      t2, 0x100 * 8
        add     t0, t0, t2
        sd      t1, 0(t0)
        li      a7, 0
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      s0, t0, t1
        MARK    text_m
        /* In M-mode: every register of translation, every form of every fence. */
        csrw    satp, s0
        li      t1, 15 << 60            /* a mode that does not exist: nothing is written */
        csrw    satp, t1
        li      a0, 0x5000
        li      a1, 0x10007
        sfence.vma
        sfence.vma a0
        sfence.vma zero, a1
        sfence.vma a0, a1
        hfence.vvma a0, a1
        hfence.gvma a0, a1
        hfence.gvma
        /* On to S-mode, with all counters open and the floating and vector units on. */
        li      t0, (1 << 11) | (1 << 13) | (1 << 9)
        csrs    mstatus, t0
        li      t0, 1 << 12
        csrc    mstatus, t0
        la      t0, s_mode
        csrw    mepc, t0
        mret

        .balign 4
m_trap: csrr    t4, mepc                /* skip what trapped */
        addi    t4, t4, 4
        csrw    mepc, t4
        csrs    mstatus, a7
        mret

        .balign 4
s_trap: csrr    t4, sepc
        addi    t4, t4, 4
        csrw    sepc, t4
        sret

s_mode: MARK    text_count
        li      t0, 100
1:      addi    t0, t0, -1
        bnez    t0, 1b
        ld      t1, 8(zero)             /* a load fault: 4 instructions of s_trap */
        sd      t1, 16(zero)            /* a store fault */
        ecall                           /* to m_trap: 5 instructions */
        nop
        MARK    text_trap
        /* With TVM these trap instead of having an effect. */
        li      a7, 1 << 20
        ecall
        sfence.vma
        csrw    satp, zero
        MARK    text_vector
        la      a0, leaf
        li      t0, 0x11110000
        li      t1, 0x22220000
        vsetivli zero, 2, e64, m1, ta, ma
        vmv.v.x v1, t0
        vslide1down.vx v1, v1, t1       /* v1 = { t0, t1 } */
        vse64.v v1, (a0)                /* entries 0 and 1 */
        li      t2, 64
        vsse64.v v1, (a0), t2           /* entries 0 and 8 */
        vid.v   v2
        li      t2, 24
        vmul.vx v2, v2, t2
        vsuxei64.v v1, (a0), v2         /* entries 0 and 3 */
        vmv.v.i v0, 2
        addi    a0, a0, 256
        vse64.v v1, (a0), v0.t          /* entry 33 only */
        vsetivli zero, 4, e32, m1, ta, ma
        addi    a0, a0, 256
        vse32.v v1, (a0)                /* entries 64 and 65, in halves */
        MARK    text_end
        li      t0, 0x100000            /* the test device: power off */
        li      t1, 0x5555
        sw      t1, 0(t0)
2:      sfence.vma                      /* executed or not before QEMU ends: no event */
        j       2b

        .balign 8
        /* Its address is known only from the symbol. */
cosim_mark:
        ret

text_m: .dword  0x6d                    /* "m" */
text_count: .dword 0x746e756f63         /* "count" */
text_trap: .dword 0x70617274            /* "trap" */
text_vector: .dword 0x726f74636576      /* "vector" */
text_end: .dword 0x646e65               /* "end" */

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
beside: .skip   4096
stack:  .skip   4096
stack_end:
