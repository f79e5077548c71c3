"""The ``micro`` guests: a bare S-mode kernel of our own; one of them starts in M-mode."""

from guest.micro.recipe import Recipe

__all__ = ["Recipe"]
