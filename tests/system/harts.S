/*
 * S-mode on OpenSBI, several harts.  The one that boots starts the others.  They share the root, and
 * each does ROUNDS rounds of its own work: hart h owns the tables own + h pages and the address
 * WINDOW + h GiB.  In each round it
 *   - stores the round, as a leaf, to entry 0 of its table, and fences the address with its ASID;
 *   - stores it to entry 1 with sc;
 *   - adds 1 << 10 to an entry that all harts share, with an AMO, and fences everything;
 *   - writes satp, with its own ASID in even rounds and without in odd ones.
 * In every 512th round it calls the firmware for remote fences: of everything on all harts, of two
 * pages on the next hart, of the same with an ASID on hart 0, by the old call on all harts, and for
 * fence.i, which is none.  At the end it waits for the others, and the hart that booted goes on.
 */
        .include "bare_kernel.inc"
        .equ    WINDOW, 64 << 30
        .equ    ROUNDS, 1024
        .equ    HSM, 0x48534d
        .equ    RFENCE, 0x52464e43

        .macro  SBI extension, number
        li      a7, \extension
        li      a6, \number
        ecall
        .endm

        /* Let the next hart run soon: QEMU changes the hart when an interrupt comes.  Otherwise it
         * does so ten times a second, and a call for remote fences waits for the other harts. */
        .macro  SOON
        csrr    t0, time
        addi    t0, t0, 1000            /* 0.1 ms */
        csrw    0x14d, t0               /* stimecmp */
        .endm

_start: mv      s0, a0                  /* the hart that boots */
        MAP_RAM root
        la      t0, root
        la      t1, own                 /* root entries 64 to 71: the table of each hart */
        li      t2, 8
1:      srli    t3, t1, 2
        ori     t3, t3, 1
        sd      t3, 64 * 8(t0)
        addi    t0, t0, 8
        li      t3, 4096
        add     t1, t1, t3
        addi    t2, t2, -1
        bnez    t2, 1b
        SATP    root
        MARK    text_begin
        li      s1, 0
2:      mv      a0, s1                  /* start hart s1; it fails for one that is not there */
        la      a1, other
        li      a2, 0
        beq     s1, s0, 3f
        SBI     HSM, 0
        bnez    a0, 3f
        la      t0, started
        li      t1, 1
        amoadd.w zero, t1, (t0)
3:      addi    s1, s1, 1
        li      t0, 8
        bne     s1, t0, 2b
        la      t0, go
        li      t1, 1
        sd      t1, 0(t0)
        mv      a0, s0
        call    work
        la      t0, started             /* wait for the others */
        la      t1, ended
4:      lw      t2, 0(t0)
        lw      t3, 0(t1)
        addi    t2, t2, 1
        bne     t2, t3, 4b
        MARK    text_end
        POWER_OFF
5:      j       5b

other:  mv      s2, a0
        SATP    root
        la      t0, go
12:     ld      t1, 0(t0)
        beqz    t1, 12b
        mv      a0, s2
        call    work
6:      wfi
        j       6b

/* a0: the hart */
work:   mv      s2, ra
        mv      s3, a0
        la      s4, own
        slli    t0, s3, 12
        add     s4, s4, t0              /* its table */
        li      s5, WINDOW
        slli    t0, s3, 30
        add     s5, s5, t0              /* its address */
        addi    s6, s3, 1               /* its ASID */
        la      s7, shared
        li      s8, ROUNDS
        li      s9, 0
        csrr    s10, satp
        slli    t0, s6, 44
        or      s11, s10, t0
7:      slli    t0, s9, 10
        ori     t0, t0, 0xcf
        sd      t0, 0(s4)
        sfence.vma s5, s6
        addi    t1, s4, 8
8:      lr.d    t2, (t1)
        sc.d    t2, t0, (t1)
        bnez    t2, 8b
        li      t0, 1 << 10
        amoadd.d zero, t0, (s7)
        sfence.vma
        andi    t0, s9, 1
        csrw    satp, s11
        beqz    t0, 9f
        csrw    satp, s10
9:      andi    t0, s9, 15
        bnez    t0, 10f
        SOON
        andi    t0, s9, 511
        bnez    t0, 10f
        li      a0, 0
        li      a1, -1
        li      a2, 0
        li      a3, -1
        SOON
        SBI     RFENCE, 1
        bnez    a0, 11f
        addi    t0, s3, 1
        la      t1, started
        lw      t1, 0(t1)
        and     t0, t0, t1              /* 2, 4 or 8 harts */
        li      a0, 1
        sll     a0, a0, t0
        li      a1, 0
        mv      a2, s5
        li      a3, 8192
        SOON
        SBI     RFENCE, 1
        li      a0, 1
        li      a1, 0
        mv      a2, s5
        li      a3, 8192
        mv      a4, s6
        SOON
        SBI     RFENCE, 2
        li      a0, 0                   /* all harts */
        li      a1, 0
        li      a2, 0
        SOON
        SBI     6, 0
        li      a0, 0
        li      a1, -1
        SOON
        SBI     RFENCE, 0
        li      a0, 0                   /* refused: there is no hart 63 */
        li      a1, 63
        li      a0, 1
        li      a2, 0
        li      a3, -1
        SOON
        SBI     RFENCE, 1
10:     addi    s9, s9, 1
        bne     s9, s8, 7b
        la      t0, ended
        li      t1, 1
        amoadd.w zero, t1, (t0)
11:     mv      ra, s2
        ret

        .bss
        .balign 8
started: .skip  8
ended:  .skip   8
go:     .skip   8
        .balign 4096
root:   .skip   4096
own:    .skip   8 * 4096
        .equ    shared, own + 8 * 511
