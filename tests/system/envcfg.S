/* A kernel whose M-mode switches paging features: ADUE on and off again, also that of virtual
 * machines (henvcfg), then PBMTE.
 *
 * Virtual page 5 is mapped without A and D, page 6 without D, page 7 with memory type NC (PBMT=1).
 * M-mode returns with MPP=S and comes back by an ecall, whose a7 says what to do next. */
        .include "m_mode.inc"
        .globl  leaf, page

        .equ    HENVCFG_AT, 0x60a       /* the assembler wants an extension for its name */
        .equ    KERNEL, 0xcf
        .equ    ADUE, 1 << 61
        .equ    PBMTE, 1 << 62

        .macro LEAF index, flags
        la      t0, leaf
        la      t1, page
        srli    t1, t1, 2
        li      t2, \flags
        or      t1, t1, t2
        sd      t1, \index * 8(t0)
        .endm

        .macro HENVCFG op, bits
        MENVCFG \op + 3, \bits
        .endm

        .macro MENVCFG op, bits
        li      a7, \op
        li      a6, \bits
        ecall
        .endm

_start: OPEN_TO_S
        li      t0, 0xb100 & ~(1 << 9)  /* calls of S stay here */
        csrw    medeleg, t0
        la      t0, machine_trap
        csrw    mtvec, t0
        li      t0, PBMTE               /* QEMU begins with it */
        csrc    menvcfg, t0
        TABLES
        LEAF    5, 0x0f                 /* neither A nor D */
        LEAF    6, 0x4f                 /* A, not D */
        LEAF    7, (1 << 61) | KERNEL
        LEAF    8, 0x0f
        la      t0, trap
        csrw    stvec, t0
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    satp, t0
        sfence.vma
        li      t0, 3 << 11
        csrc    mstatus, t0
        li      t0, 1 << 11
        csrs    mstatus, t0
        la      t0, supervisor
        csrw    mepc, t0
        mret

supervisor:
        li      s0, 0x5000
        li      s1, 0x6000
        li      s2, 0x7000
        li      s3, 0x8000
        MARK    text_begin
        ld      t0, 0(s0)               /* faults: A is clear */
        ld      t0, 0(s2)               /* faults: the memory type is reserved */
        MENVCFG 1, ADUE
        sfence.vma
        ld      t0, 0(s0)               /* the MMU sets A */
        sd      t0, 0(s1)               /* and D */
        sd      t0, 0(s0)               /* D here, too */
        ld      t0, 0(s2)               /* still faults */
        sfence.vma
        HENVCFG 1, ADUE
        HENVCFG 0, ADUE
        MENVCFG 0, ADUE
        sfence.vma
        ld      t0, 0(s0)               /* A is set by now */
        ld      t0, 0(s3)               /* faults: A is clear */
        MENVCFG 1, PBMTE
        sfence.vma
        ld      t0, 0(s2)               /* a page like any other */
        MENVCFG 0, PBMTE
        sfence.vma
        ld      t0, 0(s2)               /* faults */
        MARK    text_end
        li      t0, 0x5555
        li      a7, 2
        ecall

        .balign 4
trap:   csrr    t1, sepc
        addi    t1, t1, 4
        csrw    sepc, t1
        sret

        .balign 4
machine_trap:
        li      t1, 2
        beq     a7, t1, off
        csrr    t1, mepc
        addi    t1, t1, 4
        csrw    mepc, t1
        beqz    a7, 1f
        addi    t1, a7, -3
        beqz    t1, 2f
        bgtz    t1, 3f
        csrs    menvcfg, a6
        mret
1:      csrc    menvcfg, a6
        mret
2:      csrc    HENVCFG_AT, a6
        mret
3:      csrs    HENVCFG_AT, a6
        mret
off:    li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b

cosim_mark:
        ret
        .balign 8
text_begin: .dword 0x6e69676562         /* "begin" */
text_end: .dword 0x646e65               /* "end" */

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
page:   .skip   4096
