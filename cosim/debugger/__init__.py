"""The two debug protocols: QEMU's remote stub, and gdb's machine interface."""
