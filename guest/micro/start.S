# Entry in S-mode (a0 = hart, a1 = device tree), the trap vector, the switch to U-mode and back.

        .equ    FRAME, 33 * 8 + 8

        .section .text.start, "ax", @progbits
        .globl  _start
_start:
        la      sp, stack_top
        la      t0, bss_start
        la      t1, bss_end
1:      bgeu    t0, t1, 2f
        sd      zero, 0(t0)
        addi    t0, t0, 8
        j       1b
2:      la      t0, trap_vector
        csrw    stvec, t0
        csrw    sscratch, zero
        mv      t0, a0
        mv      a0, a1
        mv      a1, t0
        call    kernel_main
        call    power_off

# Entry of a second hart (a0 = hart, a1 = satp), which harts.c starts.
        .globl  second_start
second_start:
        la      sp, second_stack_top
        la      t0, trap_vector
        csrw    stvec, t0
        csrw    sscratch, zero
        csrw    satp, a1
        sfence.vma
        call    second_main
1:      j       1b

# sscratch is 0 in S-mode; in U-mode it is the kernel's stack pointer.
        .text
        .balign 4
trap_vector:
        csrrw   sp, sscratch, sp
        bnez    sp, 1f
        csrrw   sp, sscratch, sp
1:      addi    sp, sp, -FRAME
        .irp    r, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        sd      x\r, \r * 8(sp)
        .endr
        csrr    t0, sscratch            # the user's sp, or 0
        bnez    t0, 2f
        addi    t0, sp, FRAME
2:      sd      t0, 2 * 8(sp)
        csrw    sscratch, zero
        csrr    t0, sepc
        sd      t0, 32 * 8(sp)
        mv      a0, sp
        call    trap
        ld      t0, 32 * 8(sp)
        csrw    sepc, t0
        csrr    t0, sstatus
        andi    t0, t0, 0x100           # SPP: the privilege to return to
        bnez    t0, 3f
        addi    t0, sp, FRAME
        csrw    sscratch, t0
3:      .irp    r, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
        ld      x\r, \r * 8(sp)
        .endr
        ld      sp, 2 * 8(sp)
        sret

# u64 enter_user(pc, sp, argument): returns when trap() calls leave_user.
        .globl  enter_user
enter_user:
        addi    sp, sp, -112
        sd      ra, 0(sp)
        .irp    r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        sd      s\r, 8 + \r * 8(sp)
        .endr
        la      t0, kernel_sp
        sd      sp, 0(t0)
        csrw    sscratch, sp
        csrw    sepc, a0
        li      t0, 0x100
        csrc    sstatus, t0
        mv      sp, a1
        mv      a0, a2
        sret

# void leave_user(u64 value): make the pending enter_user return VALUE.
        .globl  leave_user
leave_user:
        la      t0, kernel_sp
        ld      sp, 0(t0)
        .irp    r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        ld      s\r, 8 + \r * 8(sp)
        .endr
        ld      ra, 0(sp)
        addi    sp, sp, 112
        ret

# The probes: each is one access.
        .option push
        .option norvc
        .globl  load_word, store_word
load_word:
        ld      a0, 0(a0)
        ret
store_word:
        sd      a1, 0(a0)
        ret
        .option pop

        .globl  call_va
call_va:
        addi    sp, sp, -16
        sd      ra, 0(sp)
        jalr    a0
        ld      ra, 0(sp)
        addi    sp, sp, 16
        ret

# The program of the scenario `user`: it stores to a0 pages that start 0x1000 bytes after its own
# page, sums what it reads back, and returns the sum.
        .section .user, "ax", @progbits
        .globl  user_program
user_program:
        auipc   t0, 0
        lui     t1, 1
        add     t0, t0, t1
        mv      t2, a0
        li      a1, 0
1:      sd      t2, 0(t0)
        ld      t3, 0(t0)
        add     a1, a1, t3
        add     t0, t0, t1
        addi    t2, t2, -1
        bnez    t2, 1b
        mv      a0, a1
        ecall

        .bss
        .balign 16
        .space  32768
stack_top:
        .space  4096
second_stack_top:
kernel_sp:
        .dword  0

        .section .note.GNU-stack, "", @progbits
