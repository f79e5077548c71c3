/* M-mode without a trap vector: the first trap goes to 0, where nothing can be fetched. */
        .globl _start
_start: sfence.vma
        li t0, 0x300000
        ld t1, 0(t0)
1:      j 1b
