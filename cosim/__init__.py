"""Everything that touches the world: QEMU, gdb, guests, traces, the command line."""
