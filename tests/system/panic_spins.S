/* A kernel that panics as xv6 does: it says so, and jumps to itself. */
        .include "panic.inc"
text:   .asciz  "panic: could not find virtio disk\n"
