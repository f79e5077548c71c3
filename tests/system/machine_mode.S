/* What M-mode does with the memory of others: `hlv` and `hsv`, and loads and stores by MPRV.
 *
 * The root maps virtual page 5 for the kernel and page 7 for the user; hypervisor loads are not
 * translated (vsatp and hgatp are Bare).  The code lies in two pages. */
        .include "m_mode.inc"
        .option arch, +h
        .globl  from_here, hlv_at, hsv_at, mprv_at, mprv_on, mprv_off, page

        .equ    MPP_S, 1 << 11
        .equ    MPRV, 1 << 17
        .equ    SPVP, 1 << 8

_start: OPEN_TO_S
        TABLES
        la      t0, leaf
        la      t1, page
        srli    t1, t1, 2
        ori     t1, t1, 0xcf
        sd      t1, 40(t0)
        la      t0, root
        srli    t0, t0, 12
        li      t1, 8 << 60
        or      t0, t0, t1
        csrw    satp, t0
        sfence.vma
        csrw    hgatp, zero
        csrw    vsatp, zero
        li      t0, SPVP
        csrs    hstatus, t0
        la      s2, page
        li      s3, 0x5008
        MARK    text_begin
        j       elsewhere

        .balign 4096
elsewhere:
        nop
hlv_at: hlv.d   t0, (s2)                /* not mapped by satp: 0x8000.... is a VA of nobody */
hsv_at: hsv.d   t0, (s2)
        li      t0, MPP_S
        csrs    mstatus, t0
        li      t0, MPRV
mprv_on: csrs   mstatus, t0
mprv_at: ld     t1, (s3)                /* as S-mode, through satp */
mprv_off: csrc  mstatus, t0
        j       done

        .balign 4096
done:   MARK    text_end
        li      t0, 0x100000
        li      t1, 0x5555
        sw      t1, 0(t0)
1:      j       1b

cosim_mark:
        ret
        .balign 8
text_begin: .dword 0x6e69676562         /* "begin" */
text_end: .dword 0x646e65               /* "end" */

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
page:   .skip   4096
