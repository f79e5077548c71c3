/* A kernel (S-mode, 0x80200000, on OpenSBI) whose one leaf maps RAM writable and executable.
 *
 * In the region it writes a routine into memory, which loads a second root and fences, and calls
 * it: neither was in any text that could be known.  A fence that it writes beside is never executed.
 * Then it stores to that root. */
        .include "bare_kernel.inc"

_start: MAP_RAM first
        MAP_RAM second
        SATP    first
        MARK    text_begin
        la      s0, routine
        li      t0, 0x18051073          /* csrw satp, a0 */
        sw      t0, 0(s0)
        li      t0, 0x12000073          /* sfence.vma */
        sw      t0, 4(s0)
        la      t1, unused
        sw      t0, 0(t1)
        li      t0, 0x00008067          /* ret */
        sw      t0, 8(s0)
        fence.i
        SV39    second
        mv      a0, t0
        jalr    s0
        la      t0, first               /* still live: a stop, at which satp is another */
        sd      zero, 0(t0)
        la      t0, second
        li      t1, (0x40000000 >> 2) | 0xc7
        sd      t1, 8(t0)
        MARK    text_end
        POWER_OFF
1:      j       1b

        .bss
        .balign 4096
first:  .skip   4096
second: .skip   4096
routine: .skip  4096
unused: .skip   4096
