"""Values inside QEMU's options."""

from __future__ import annotations

import os
from pathlib import Path


def option_value(path: Path) -> str:
    """Return ``path`` as a value inside a QEMU option: its commas are doubled."""
    return os.fspath(path).replace(",", ",,")


def image_name(path: Path) -> str:
    """Return ``path`` as the name of a disk image inside a QEMU option.

    QEMU takes what stands before a colon (``nbd:..``, ``fat:..``) for a protocol, unless a slash
    comes first.
    """
    name = option_value(path)
    return f"./{name}" if ":" in name and not path.is_absolute() else name
