"""The ``linux`` guest: Debian's own riscv64 kernel and an initramfs of our programs."""

from guest.linux.recipe import Recipe

__all__ = ["Recipe"]
