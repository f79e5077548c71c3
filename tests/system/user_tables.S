/* A kernel whose page tables are mapped as user memory, too.
 *
 * In the region every store to a table but those marked "kernel" goes through such a mapping: from
 * S-mode with SUM, and from U-mode.  test_user_tables.py knows what is stored where. */
        .include "bare_kernel.inc"
        .globl  middle, leaf, late, leaf2, data

        /* In U-mode: store \value to \va. */
        .macro USER_STORE va, value
        li      a0, \va
        li      a1, \value
        call    in_user
        .endm

        .macro STORE va, value
        li      a0, \va
        li      a1, \value
        sd      a1, 0(a0)
        .endm

_start: MAP_RAM first
        MAP_RAM second
        ENTRY   first, 0, middle, 1
        ENTRY   middle, 0, leaf, 1
        ENTRY   leaf, 1, user_code, USER
        ENTRY   leaf, 2, leaf, USER     /* a table maps itself */
        ENTRY   leaf, 3, late, USER     /* no table yet */
        ENTRY   second, 0, middle2, 1
        ENTRY   middle2, 0, leaf2, 1
        ENTRY   leaf2, 2, leaf2, USER   /* another table at the same address */
        la      t0, trap
        csrw    stvec, t0
        SATP    first
        li      t0, 1 << 18             /* sstatus.SUM */
        csrs    sstatus, t0
        MARK    text_begin
        STORE   0x2320, 0x100           /* leaf, entry 100 */
        li      a0, 0x2320
        li      a1, 0x200
        amoor.d zero, a1, (a0)
        USER_STORE 0x2328, 0x400        /* leaf, entry 101 */
        ENTRY   middle, 1, late, 1      /* kernel: becomes a table */
        STORE   0x3028, 0x100           /* late, entry 5 */
        USER_STORE 0x3030, 0x200        /* late, entry 6 */
        ENTRY   leaf, 4, late, USER     /* kernel: mapped once more */
        sfence.vma
        USER_STORE 0x4038, 0x300        /* late, entry 7 */
        li      t1, 0x80200000          /* kernel: a large page over all of this */
        srli    t1, t1, 2
        ori     t1, t1, USER
        la      t0, middle
        sd      t1, 16(t0)
        sfence.vma
        la      a0, late
        li      t0, 0x80200000 - 0x400000
        sub     a0, a0, t0
        li      a1, 0x400
        sd      a1, 64(a0)              /* late, entry 8 */
        ENTRY   leaf, 4, data, USER     /* kernel: not a table any more */
        sfence.vma
        li      s1, 1000
1:      USER_STORE 0x4038, 0x500        /* data: not to be seen */
        addi    s1, s1, -1
        bnez    s1, 1b
        SATP    second
        STORE   0x2330, 0x100           /* leaf2, entry 102 */
        ENTRY   leaf2, 2, data, USER    /* kernel */
        sfence.vma
        SATP    first
        STORE   0x2338, 0x100           /* leaf, entry 103 */
        MARK    text_end
        POWER_OFF

in_user:                                /* user_code at 0x1000 does it, and comes to `trap` */
        li      t0, 0x1000
        csrw    sepc, t0
        li      t0, 1 << 8              /* sstatus.SPP */
        csrc    sstatus, t0
        mv      s0, ra
        sret

        .balign 4
trap:   li      t0, 1 << 8
        csrs    sstatus, t0
        jr      s0

        .balign 4096
user_code:
        sd      a1, 0(a0)
        ecall

        .bss
        .balign 4096
first:  .skip   4096
middle: .skip   4096
leaf:   .skip   4096
late:   .skip   4096
second: .skip   4096
middle2: .skip  4096
leaf2:  .skip   4096
data:   .skip   4096
