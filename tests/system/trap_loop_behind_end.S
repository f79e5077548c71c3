/* A kernel that traps without end behind the end of the region. */
        .include "bare_kernel.inc"

_start: MAP_RAM root
        SATP    root
        MARK    text_begin
        sfence.vma
        MARK    text_end
        csrw    stvec, zero
        ebreak

        .bss
        .balign 4096
root:   .skip   4096
