"""gdb's machine interface and the remote protocol between gdb and QEMU."""
