"""The ``debian`` guest: a small Debian on a disk, with its own shell on the console."""

from guest.debian.recipe import NAME, Recipe

__all__ = ["NAME", "Recipe"]
