/* A kernel that starts in M-mode, prints LINES lines of 64 bytes and THE-END, and powers off; with
   SPIN it goes on for ever instead, without interrupts. */
    .section .text.start
    .global _start
_start:
    li   s0, 0x10000000         /* UART */
    li   s1, LINES
line:
    li   s2, 63
column:
    li   a0, 'y'
    jal  put
    addi s2, s2, -1
    bnez s2, column
    li   a0, '\n'
    jal  put
    addi s1, s1, -1
    bnez s1, line
    la   s3, end
letter:
    lbu  a0, 0(s3)
    beqz a0, off
    jal  put
    addi s3, s3, 1
    j    letter
off:
#ifdef SPIN
    j    .
#endif
    li   t0, 0x100000           /* SiFive test device */
    li   t1, 0x5555
    sw   t1, 0(t0)
    j    .
put:
    lbu  t0, 5(s0)
    andi t0, t0, 0x20
    beqz t0, put
    sb   a0, 0(s0)
    ret
end:
    .asciz "THE-END\n"
