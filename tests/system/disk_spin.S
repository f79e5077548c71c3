        .equ    SPINS, 1
        .include "disk_dma.S"
