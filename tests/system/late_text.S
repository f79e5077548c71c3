/* A kernel (S-mode, 0x80200000, on OpenSBI) whose one leaf maps RAM writable and executable.
 *
 * In the region it writes a routine into memory, which loads a second root and fences, and calls
 * it: neither was in any text that could be known.  Then it stores to that root. */
        .option norvc
        .option norelax
        .globl _start, cosim_mark

        .macro MARK text
        la      t6, \text
        ld      a0, 0(t6)
        li      a1, 0
        li      a2, 0
        li      a3, 0
        call    cosim_mark
        .endm

        .macro SATP register, root
        la      \register, \root
        srli    \register, \register, 12
        li      t1, 8 << 60
        or      \register, \register, t1
        .endm

_start: la      t0, first
        la      t2, second
        li      t1, (0x80000000 >> 2) | 0xcf
        sd      t1, 16(t0)
        sd      t1, 16(t2)
        SATP    t0, first
        csrw    satp, t0
        sfence.vma
        MARK    text_begin
        la      s0, routine
        li      t0, 0x18051073          /* csrw satp, a0 */
        sw      t0, 0(s0)
        li      t0, 0x12000073          /* sfence.vma */
        sw      t0, 4(s0)
        li      t0, 0x00008067          /* ret */
        sw      t0, 8(s0)
        fence.i
        SATP    a0, second
        jalr    s0
        la      t0, first               /* still live: a stop, at which satp is another */
        sd      zero, 0(t0)
        la      t0, second
        li      t1, (0x40000000 >> 2) | 0xc7
        sd      t1, 8(t0)
        MARK    text_end
        li      a7, 0x53525354          /* SBI: power off */
        li      a6, 0
        li      a0, 0
        li      a1, 0
        ecall
1:      wfi
        j       1b

        .balign 8
cosim_mark:
        ret

text_begin: .dword 0x6e69676562         /* "begin" */
text_end: .dword 0x646e65               /* "end" */

        .bss
        .balign 4096
first:  .skip   4096
second: .skip   4096
routine: .skip  4096
