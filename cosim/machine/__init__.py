"""One QEMU process, its console, and the tools and signals around it."""
