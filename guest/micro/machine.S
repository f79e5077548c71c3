# The firmware of micro-m: enters S-mode and serves the two SBI calls that the kernel makes
# (console_putchar on the 16550 UART, system_reset on the test device of QEMU's virt board).

        .equ    UART, 0x10000000
        .equ    TEST, 0x100000
        .equ    POWER_OFF, 0x5555
        .equ    FAIL, 0x13333           # exit status 1

        .section .machine, "ax", @progbits
        .globl  machine_start
machine_start:
        csrr    t0, mhartid
        bnez    t0, park
        la      t0, machine_trap
        csrw    mtvec, t0
        li      t0, -1                  # every privilege level may access all memory
        csrw    pmpaddr0, t0
        li      t0, 0x1f
        csrw    pmpcfg0, t0
        li      t0, 0xb1ff              # delegate every trap but the kernel's ecall
        csrw    medeleg, t0
        li      t0, -1
        csrw    mcounteren, t0
        li      t0, 0xf0                # menvcfg: cache-block instructions; A/D left to software
        csrs    0x30a, t0
        li      t0, 3 << 11
        csrc    mstatus, t0
        li      t0, 1 << 11
        csrs    mstatus, t0
        la      t0, _start
        csrw    mepc, t0
        mret

        .balign 4
machine_trap:
        csrw    mscratch, t0
        csrr    t0, mcause
        addi    t0, t0, -9
        bnez    t0, fail
        addi    t0, a7, -1
        beqz    t0, putchar
        li      t0, 0x53525354
        beq     a7, t0, system_reset
        li      a0, -2                  # not supported
return:
        csrr    t0, mepc
        addi    t0, t0, 4
        csrw    mepc, t0
        csrr    t0, mscratch
        mret

# An SBI call may overwrite a1.
putchar:
        li      a1, UART
1:      lbu     t0, 5(a1)
        andi    t0, t0, 0x20
        beqz    t0, 1b
        sb      a0, 0(a1)
        li      a0, 0
        j       return

system_reset:
        li      t0, POWER_OFF
        j       1f
fail:
        li      t0, FAIL
1:      li      a1, TEST
        sw      t0, 0(a1)
/* No wfi: QEMU runs all code in a page with one instruction by instruction while it records. */
park:
        j       park

        .section .note.GNU-stack, "", @progbits
