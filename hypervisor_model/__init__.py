"""RISC-V MMU, TLB and memory-virtualization policies as a library without processes or files."""
