"""Memory-virtualization policies, one file each."""
