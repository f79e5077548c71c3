"""The ``linux`` guest: Debian's own riscv64 kernel and an initramfs of our programs."""

from guest.linux.packages import Kernel
from guest.linux.recipe import APPEND, NAME, Recipe, entries, program

__all__ = ["APPEND", "NAME", "Kernel", "Recipe", "entries", "program"]
