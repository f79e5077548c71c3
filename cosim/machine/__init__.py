"""One QEMU process and its console; the programs, child processes and signals around it."""
