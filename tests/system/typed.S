/* A kernel that starts in M-mode and reads a line from a UART without FIFO, which holds one byte.
   It shows each byte late, then the whole line again, and powers off. */
    .section .text.start
    .global _start
_start:
    li   s0, 0x10000000         /* UART */
    la   s1, line
    sfence.vma                  /* something to count */
    la   s3, ready
    jal  print
next:
    lbu  t0, 5(s0)              /* is there a byte? */
    andi t0, t0, 1
    beqz t0, next
    lbu  a0, 0(s0)
    sb   a0, 0(s1)
    addi s1, s1, 1
    mv   s2, a0
    li   t0, 100000             /* the guest does something else */
busy:
    addi t0, t0, -1
    bnez t0, busy
    jal  put
    li   t0, '\n'
    bne  s2, t0, next
    sb   zero, 0(s1)
    la   s3, took
    jal  print
    la   s3, line
    jal  print
    sfence.vma
    li   t0, 0x100000           /* SiFive test device */
    li   t1, 0x5555
    sw   t1, 0(t0)
    j    .
print:
    mv   s4, ra
letter:
    lbu  a0, 0(s3)
    beqz a0, printed
    jal  put
    addi s3, s3, 1
    j    letter
printed:
    jr   s4
put:
    lbu  t0, 5(s0)
    andi t0, t0, 0x20
    beqz t0, put
    sb   a0, 0(s0)
    ret
ready:
    .asciz "ready> "
took:
    .asciz "took: "
    .bss
line:
    .skip 4096
