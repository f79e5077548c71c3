/* S-mode that faults again and again, with a handler that goes back to the load that faults. */
        .include "m_mode.inc"

_start: OPEN_TO_S
        TABLES
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    satp, t0
        sfence.vma
        la      t0, handler
        csrw    stvec, t0
        li      t0, 1 << 11             /* MPP := S */
        csrs    mstatus, t0
        la      t0, again
        csrw    mepc, t0
        mret
again:  li      t0, 0x300000
        ld      t1, 0(t0)
        j       .
        .balign 4
handler: sret

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
