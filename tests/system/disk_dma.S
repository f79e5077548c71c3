/* A kernel that reads a sector of its disk into a page table that is in use, and writes another.
 *
 * The disk is a modern virtio device in the first virtio-mmio place of QEMU's virt board.  The
 * assembler writes both requests.  The kernel waits for them by polling.  Behind the end of the
 * region it stores to the table with hsv, up to the mark "late".  With SPINS it prints a letter
 * when the disk is written, and never ends. */
        .include "bare_kernel.inc"
        .globl  leaf
        .option arch, +h

        .equ    DISK, 0x10001000        /* registers, by their names in the virtio specification */
        .equ    DRIVER_FEATURES, 0x020
        .equ    DRIVER_FEATURES_SEL, 0x024
        .equ    QUEUE_SEL, 0x030
        .equ    QUEUE_NUM, 0x038
        .equ    QUEUE_READY, 0x044
        .equ    QUEUE_NOTIFY, 0x050
        .equ    STATUS, 0x070
        .equ    QUEUE_DESC, 0x080
        .equ    QUEUE_DRIVER, 0x090
        .equ    QUEUE_DEVICE, 0x0a0

        .macro SET register, value
        li      t0, \value
        sw      t0, \register(s0)
        .endm

        .macro SET_ADDRESS register, address
        la      t0, \address
        sw      t0, \register(s0)
        srli    t0, t0, 32
        sw      t0, \register + 4(s0)
        .endm

_start: MAP_RAM root
        la      t0, root                /* entry 0: the devices, where they are */
        li      t1, KERNEL
        sd      t1, 0(t0)
        ENTRY   root, 1, middle, 1
        ENTRY   middle, 0, leaf, 1
        SATP    root
        li      s0, DISK
        SET     STATUS, 0
        SET     STATUS, 3               /* ACKNOWLEDGE, DRIVER */
        SET     DRIVER_FEATURES_SEL, 0
        SET     DRIVER_FEATURES, 0
        SET     DRIVER_FEATURES_SEL, 1
        SET     DRIVER_FEATURES, 1      /* VERSION_1 */
        SET     STATUS, 11              /* FEATURES_OK */
        SET     QUEUE_SEL, 0
        SET     QUEUE_NUM, 8
        SET_ADDRESS QUEUE_DESC, descriptors
        SET_ADDRESS QUEUE_DRIVER, available
        SET_ADDRESS QUEUE_DEVICE, used
        SET     QUEUE_READY, 1
        SET     STATUS, 15              /* DRIVER_OK */
        MARK    text_begin
        la      t0, leaf
        li      t1, 0x100
        sd      t1, 0(t0)
        sfence.vma
        fence
        SET     QUEUE_NOTIFY, 0
        la      t0, used
        li      t2, 2
1:      lhu     t1, 2(t0)               /* how many requests are done */
        bne     t1, t2, 1b
        .ifdef  SPINS
        li      a7, 1                   /* SBI: print */
        li      a0, 'w'
        ecall
2:      j       2b
        .endif
        sfence.vma
        MARK    text_end
        csrw    hgatp, zero
        csrw    vsatp, zero
        la      t0, leaf
        li      t1, 0x200
        addi    t0, t0, 8
        hsv.d   t1, (t0)
        sfence.vma
        MARK    text_late
        POWER_OFF
        .balign 8
text_late: .dword 0x6574616c            /* "late" */

        .data
        .balign 16
read:   .word   0, 0
        .dword  0                       /* sector */
write:  .word   1, 0
        .dword  1
written: .fill  512, 1, 'w'
        .balign 16
descriptors:
        .dword  read
        .word   16
        .half   1, 1                    /* NEXT */
        .dword  leaf + 512
        .word   512
        .half   3, 2                    /* NEXT, WRITE */
        .dword  done
        .word   1
        .half   2, 0                    /* WRITE */
        .dword  write
        .word   16
        .half   1, 4
        .dword  written
        .word   512
        .half   1, 5
        .dword  done + 1
        .word   1
        .half   2, 0
        .skip   2 * 16
available: .half 0, 2, 0, 3             /* two requests, which begin with descriptors 0 and 3 */
        .skip   16
done:   .byte   255, 255
        .balign 16
used:   .skip   4 + 8 * 8

        .bss
        .balign 4096
root:   .skip   4096
middle: .skip   4096
leaf:   .skip   4096
