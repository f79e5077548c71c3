/* Accesses of every kind, for test_sources_agree.py: across pages, faulting, atomic, by user and
 * supervisor, and through two mappings of one page.
 *
 * Runs in M-mode from 0x80000000 (-bios none), then in S-mode under Sv39: the root maps RAM as one
 * 1 GiB leaf, and its entry 0 leads to a middle and a leaf table for the first 2 MiB. */
        .include "m_mode.inc"
        .option arch, +zicboz

        .equ    RW, 0xc7
        .equ    RX, 0x4b
        .equ    XONLY, 0x49
        .equ    U, 0x10
        .equ    SUM, 1 << 18
        .equ    MXR, 1 << 19

        /* Virtual page NUMBER shows the page of SYMBOL. */
        .macro MAP number, symbol, flags
        la      t0, \symbol
        srli    t0, t0, 2
        ori     t0, t0, \flags
        la      t1, leaf
        sd      t0, 8 * \number(t1)
        .endm

_start: la      sp, stack_end
        OPEN_TO_S
        li      t0, 1 << 7              /* cbo.zero */
        csrs    0x30a, t0
        la      t0, s_trap
        csrw    stvec, t0
        TABLES
        la      t0, leaf
        li      t1, (0x10000000 >> 2) | RW
        sd      t1, 8 * 7(t0)           /* page 7: the console */
        li      t1, (0x100000 >> 2) | RW
        li      t2, 8 * 0x100
        add     t0, t0, t2
        sd      t1, 0(t0)               /* page 0x100: the test device, to power off */
        MAP     1, border, RX
        MAP     2, behind, RX
        MAP     3, border, RX           /* page 4 is not mapped */
        MAP     5, twice, RX
        MAP     6, twice, RX
        MAP     8, data, RW
        MAP     9, other, RW            /* page 10 is not mapped */
        MAP     11, data, RW | U
        MAP     12, program, RX | U
        MAP     13, data, XONLY
        MAP     14, leaf, RW            /* a table */
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    satp, t0
        sfence.vma
        li      t0, 1 << 11
        csrs    mstatus, t0
        li      t0, 1 << 12
        csrc    mstatus, t0
        la      t0, s_mode
        csrw    mepc, t0
        mret

        /* A fetch that faulted was a call: return from it.  A call of U: go on at s11.  Else step
         * over the instruction. */
        .balign 4
s_trap: csrr    t4, scause
        li      t5, 12
        beq     t4, t5, 1f
        li      t5, 8
        beq     t4, t5, 2f
        csrr    t4, sepc
        addi    t4, t4, 4
        csrw    sepc, t4
        sret
1:      csrw    sepc, ra
        sret
2:      csrw    sepc, s11
        li      t4, 1 << 8
        csrs    sstatus, t4
        sret

s_mode: MARK    text_begin
        /* Fetches. */
        li      t0, 0x1ffc
        jalr    t0                      /* an instruction across two pages */
        li      t0, 0x3ffc
        jalr    t0                      /* the second of which is not mapped */
        li      t0, 0x4000
        jalr    t0
        li      t0, 0x5000
        li      a1, 0x6004
        jalr    t0                      /* jumps to the other mapping of its page */
        li      t0, 0x5008
        jalr    t0
        /* Loads and stores. */
        li      s0, 0x8ffc
        ld      t0, 0(s0)
        sd      t0, 0(s0)
        lh      t0, 3(s0)
        li      s0, 0x9ffc
        ld      t0, 0(s0)               /* the second half faults */
        sd      t0, 0(s0)
        sb      t0, 3(s0)
        li      s0, 0xa000
        ld      t0, 0(s0)
        sw      t0, 8(s0)
        li      s0, 0xeff8              /* the table's last entries and what is not mapped behind */
        sd      zero, 4(s0)
        sw      zero, 4(s0)
        /* Atomics. */
        li      s0, 0x8000
        amoadd.d t0, t0, (s0)
        amoswap.w t0, t0, (s0)
        lr.d    t0, (s0)
        sc.d    t1, t0, (s0)
        sc.d    t1, t0, (s0)            /* fails */
        li      s0, 0xa000
        amoadd.d t0, t0, (s0)
        lr.w    t0, (s0)
        sc.w    t0, t0, (s0)            /* fails, or faults */
        li      s0, 0xe808
        lr.d    t0, (s0)
        sc.d    t1, zero, (s0)
        amoor.d t0, zero, (s0)
        sc.d    t1, zero, (s0)
        /* Blocks. */
        li      s0, 0x8044
        cbo.zero (s0)
        li      s0, 0xe900
        cbo.zero (s0)
        li      s0, 0xa044
        cbo.zero (s0)
        /* Supervisor and user. */
        li      s0, 0xb000
        ld      t0, 0(s0)
        li      t1, SUM
        csrs    sstatus, t1
        ld      t0, 0(s0)
        sd      t0, 0(s0)
        la      s11, 1f
        li      t0, 0xc000
        csrw    sepc, t0
        li      t0, 1 << 8
        csrc    sstatus, t0
        sret                            /* to `program`, with SUM set */
1:      li      t1, SUM
        csrc    sstatus, t1
        li      s0, 0xd000
        lw      t0, 0(s0)
        li      t1, MXR
        csrs    sstatus, t1
        lw      t0, 0(s0)
        csrc    sstatus, t1
        lw      t0, 0(s0)
        MARK    text_end
        /* A recording of QEMU's goes as far as the last thing that came from or went outside. */
        li      t0, 0x7000
        li      t1, '\n'
        sb      t1, 0(t0)
        li      t0, 1000
2:      addi    t0, t0, -1
        bnez    t0, 2b
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
3:      wfi
        j       3b

        .balign 8
cosim_mark:
        ret

text_begin: .dword 0x6e69676562         /* "begin" */
text_end: .dword 0x646e65               /* "end" */

        .balign 4096
border: .skip   4092
        .half   0x0001                  /* c.nop */
        .half   0x8293                  /* addi t0, t0, 1: half of it here */
behind: .half   0x0012                  /* and half in the next page */
        ret

        .balign 4096
twice:  jr      a1
        ret
        jr      ra

        .balign 4096
program:
        ld      t0, 0(s0)
        sd      t0, 8(s0)
        ld      t0, -8(s0)              /* faults */
        ecall

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
data:   .skip   4096
other:  .skip   4096
stack:  .skip   4096
stack_end:
