/* A kernel whose virtual machine (V=1) traps when it writes satp or fences (hstatus.VTVM); the kernel
 * does it in its place, as a hypervisor that keeps shadow tables.
 *
 * Both map virtual page 5, each to a page of its own, and neither page 6. */
        .include "bare_kernel.inc"
        .option arch, +h
        .globl  leaf

        .equ    SPV, 1 << 7             /* hstatus */
        .equ    SPVP, 1 << 8
        .equ    VTVM, 1 << 20
        .equ    SPP, 1 << 8             /* sstatus */

_start: MAP_RAM root
        ENTRY   root, 0, middle, 1
        ENTRY   middle, 0, leaf, 1
        ENTRY   leaf, 5, page, KERNEL
        MAP_RAM vs_root
        ENTRY   vs_root, 0, vs_middle, 1
        ENTRY   vs_middle, 0, vs_leaf, 1
        ENTRY   vs_leaf, 5, vs_page, KERNEL
        la      t0, trap
        csrw    stvec, t0
        SATP    root
        li      s4, 0
        li      s2, 0x5000
        li      s3, 0x6000
        MARK    text_begin
        csrw    hgatp, zero             /* the virtual machine's addresses are the kernel's */
        hfence.gvma
        csrw    vsatp, zero
        li      t0, SPV | SPVP | VTVM
        csrs    hstatus, t0
        li      t0, SPP
        csrs    sstatus, t0
        la      t0, virtual
        csrw    sepc, t0
        la      s0, back
        sret
back:   beqz    s4, dead                /* nothing has trapped */
        hlv.d   t0, (s2)
        hlv.d   t0, (s3)                /* faults */
        ld      t0, 0(s2)
        ENTRY   leaf, 9, page, KERNEL
        sfence.vma
        li      t0, 0x9000
        sd      t0, 0(t0)
        MARK    text_end
dead:   POWER_OFF

virtual:
        SATP    vs_root                 /* writes vsatp */
        ld      t0, 0(s2)
        sd      t0, 8(s2)
        ld      t0, 0(s3)               /* faults */
        ecall

        .balign 4
trap:   csrw    sscratch, t0
        csrr    t0, scause
        li      t1, 10                  /* a call from VS-mode: it is done */
        beq     t0, t1, 1f
        li      t1, 22                  /* a virtual instruction: satp, then sfence.vma */
        bne     t0, t1, 2f
        csrr    t0, sscratch
        beqz    s4, 3f
        hfence.vvma
        j       2f
3:      csrw    vsatp, t0
        li      s4, 1
2:      csrr    t0, sepc
        addi    t0, t0, 4
        csrw    sepc, t0
        sret
1:      li      t0, SPV | VTVM
        csrc    hstatus, t0
        jr      s0

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
page:   .skip   4096
vs_root: .skip  4096
vs_middle: .skip 4096
vs_leaf: .skip  4096
vs_page: .skip  4096
