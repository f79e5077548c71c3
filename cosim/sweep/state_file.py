"""The file by which the folder of a sweep is known.

This module imports nothing, so that commands that take many kinds of folders start fast.
"""

from __future__ import annotations

from pathlib import Path

NAME = "sweep.json"


def is_sweep(path: Path) -> bool:
    """Return True if ``path`` is the folder of a sweep."""
    return (path / NAME).is_file()
