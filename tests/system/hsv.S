/* M-mode, then HS-mode stores to live tables with `hsv`: not translated, by vsatp, and by both stages.
 *
 * Each of STORES writes 7 entries; its last `hsv` faults and writes none. */
        .include "m_mode.inc"
        .option arch, +h

        .equ    SPVP, 1 << 8
        .equ    GUEST, 0xdf             /* flags of a leaf of the G-stage: D A U X W R V */
        .equ    HOST, 0xcf

        .macro STORES
        csrw    vsatp, zero
        csrw    hgatp, zero
        hfence.gvma
        hfence.vvma
        la      s2, leaf
        hsv.d   s4, (s2)
        hsv.d   s4, (s2)                /* the same value */
        addi    s3, s2, 8
        hsv.w   s4, (s3)
        hsv.h   s4, (s3)
        hsv.b   s4, (s3)
        la      t0, vs_root             /* vsatp maps 0x40000000 to RAM */
        li      t1, (0x80000000 >> 2) | HOST
        sd      t1, 8(t0)
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    vsatp, t0
        hfence.vvma
        li      t0, 0x40000000
        sub     s3, s2, t0
        addi    s3, s3, 16
        hsv.d   s4, (s3)
        la      t0, vs_root             /* and now the guest has RAM at 0x100000000 */
        li      t1, (0x100000000 >> 2) | HOST
        sd      t1, 8(t0)
        li      t1, 0x80000000
        add     t0, t0, t1
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    vsatp, t0
        la      t0, g_root
        li      t1, (0x80000000 >> 2) | GUEST
        sd      t1, 32(t0)
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    hgatp, t0
        hfence.gvma
        hfence.vvma
        addi    s3, s3, 8
        hsv.d   s4, (s3)
        hsv.d   s4, (zero)              /* faults */
        .endm

_start: OPEN_TO_S
        TABLES
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    satp, t0
        sfence.vma
        la      t0, skip_m
        csrw    mtvec, t0
        la      t0, skip_s
        csrw    stvec, t0
        li      t0, SPVP
        csrs    hstatus, t0
        li      s4, 0x1234
        MARK    text_begin
        STORES
        sfence.vma
        li      t0, 3 << 11             /* MPP := S */
        csrc    mstatus, t0
        li      t0, 1 << 11
        csrs    mstatus, t0
        la      t0, smode
        csrw    mepc, t0
        mret
smode:  li      s4, 0x4568
        STORES
        sfence.vma
        MARK    text_end
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b

        .balign 4
skip_m: csrr    t0, mepc
        addi    t0, t0, 4
        csrw    mepc, t0
        mret
        .balign 4
skip_s: csrr    t0, sepc
        addi    t0, t0, 4
        csrw    sepc, t0
        sret

        .balign 4
cosim_mark:
        ret
        .balign 8
text_begin: .dword 0x6e69676562         /* "begin" */
text_end: .dword 0x646e65               /* "end" */

        .bss
        .balign 16384
g_root: .skip   16384
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
vs_root: .skip  4096
