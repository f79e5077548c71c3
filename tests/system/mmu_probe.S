/* A bare M-mode program that translates on request.

   It waits until `control.go` differs from `control.done`, then performs the accesses listed in
   `vectors` one by one, each under its own registers, and writes what became of each back into the
   list.  The host fills list and tables while the guest is stopped.  Offsets as in mmu_probe.py.

   Extension H is written as numbers, so that any assembler takes it. */

    .equ MPP_S, 1 << 11
    .equ MPP_M, 3 << 11
    .equ SPP_S, 1 << 8
    .equ SPV, 1 << 7                /* of hstatus */

    .equ hstatus, 0x600
    .equ henvcfg, 0x60a
    .equ hgatp, 0x680
    .equ vsstatus, 0x200
    .equ vsatp, 0x280
    .equ menvcfg, 0x30a
    .equ mtinst, 0x34a
    .equ mtval2, 0x34b

    .section .text.start, "ax"
    .globl _start
_start:
    li t0, 0x1f                     /* PMP: what pmpaddr0 names is open below M */
    csrw pmpcfg0, t0
    la t0, trap
    csrw mtvec, t0
    csrw medeleg, zero
    csrw mideleg, zero
    li s2, 0x80100000               /* control: go, done, number of vectors */
idle:
    ld t0, 0(s2)
    ld t1, 8(s2)
    beq t0, t1, idle
    fence
    ld t0, 16(s2)
    li s3, 160
    mul t0, t0, s3
    addi s0, s2, 64                 /* s0: this vector; s1: the end */
    add s1, s0, t0
next:
    bgeu s0, s1, finished
    ld t1, 136(s0)
    csrw pmpaddr0, t1
    ld t0, 80(s0)                   /* two stages? */
    bnez t0, virtual
    ld t1, 0(s0)
    csrw satp, t1
    j prepared
virtual:
    /* Set mstatus.MPV by a trap from VS-mode.  A program cannot write MPV in QEMU 10.0.13
       (departure 9).  All translation is off meanwhile. */
    csrw vsatp, zero
    csrw hgatp, zero
    li t1, SPV
    csrw hstatus, t1
    li t1, MPP_S | SPP_S
    csrw mstatus, t1
    la t1, to_vs
    csrw mepc, t1
    la t1, in_vs
    csrw sepc, t1
    la t1, from_vs
    csrw mtvec, t1
    mret
to_vs:
    sret
in_vs:
    ecall
    .balign 4
from_vs:
    la t1, trap
    csrw mtvec, t1
    ld t1, 0(s0)
    csrw vsatp, t1
    ld t1, 8(s0)
    csrw hgatp, t1
prepared:
    ld t1, 48(s0)
    csrw menvcfg, t1
    ld t1, 56(s0)
    csrw henvcfg, t1
    ld t1, 40(s0)
    csrw vsstatus, t1
    ld t1, 64(s0)
    csrw hstatus, t1
    sfence.vma
    .insn r 0x73, 0, 0x11, x0, x0, x0   /* hfence.vvma */
    .insn r 0x73, 0, 0x31, x0, x0, x0   /* hfence.gvma */
    ld a0, 16(s0)
    ld a1, 72(s0)
    li a2, 0
    ld t1, 32(s0)
    ld t2, 24(s0)
    la t3, operations
    slli t2, t2, 3
    add t3, t3, t2
    ld t3, 0(t3)
    csrw mepc, a0
    csrw mstatus, t1                /* from here on MPRV may be set: registers only */
    jr t3

op_load:
    ld a2, 0(a0)
    j fine
op_store:
    sd a1, 0(a0)
    j fine
op_fetch:
    mret
op_amo:
    amoswap.d a2, a1, (a0)
    j fine
op_hlv:
    .insn r 0x73, 4, 0x36, a2, a0, x0   /* hlv.d */
    j fine
op_hsv:
    .insn r 0x73, 4, 0x37, x0, a0, a1   /* hsv.d */
    j fine
op_hlvx:
    .insn r 0x73, 4, 0x34, a2, a0, x3   /* hlvx.wu */
fine:
    li t0, -1
    li t1, 0
    li t2, 0
    li t3, 0
    j record
    .balign 4
trap:
    csrr t0, mcause
    csrr t1, mtval
    csrr t2, mtval2
    csrr t3, mtinst
record:
    csrw satp, zero
    /* mret clears mstatus.MPV in every version of QEMU. */
    li t4, MPP_M
    csrw mstatus, t4
    la t4, recorded
    csrw mepc, t4
    mret
recorded:
    csrw mstatus, zero
    sd t0, 88(s0)
    sd t1, 96(s0)
    sd t2, 104(s0)
    sd t3, 112(s0)
    sd a2, 120(s0)
    addi s0, s0, 160
    j next
finished:
    fence
    ld t0, 0(s2)
    sd t0, 8(s2)
    j idle

    .balign 8
operations:
    .quad op_load, op_store, op_fetch, op_amo, op_hlv, op_hsv, op_hlvx
