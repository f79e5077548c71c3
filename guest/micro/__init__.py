"""The guests ``micro`` and ``micro-m``: our bare S-mode kernel; ``micro-m`` starts in M-mode."""

from guest.micro.recipe import Recipe

__all__ = ["Recipe"]
