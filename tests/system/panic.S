/* A kernel that panics as Linux does without panic=-1 on its command line: it says so, and waits. */
        .include "panic.inc"
text:   .asciz  "[    1.5] Kernel panic - not syncing: no init\n---[ end Kernel panic - not syncing: no init ]---\n"
