/* A kernel that panics as Linux does without panic=-1 on its command line: it says so, and waits. */
        .include "m_mode.inc"

_start: la      t0, text
        li      t1, 0x10000000          /* the UART */
1:      lbu     t2, 0(t0)
        beqz    t2, 2f
        sb      t2, 0(t1)
        addi    t0, t0, 1
        j       1b
2:      j       2b

cosim_mark:
        ret
text:   .asciz  "[    1.5] Kernel panic - not syncing: no init\n---[ end Kernel panic - not syncing: no init ]---\n"
