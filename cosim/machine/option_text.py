"""Values inside QEMU's options."""

from __future__ import annotations

import os
from pathlib import Path


def option_value(path: Path) -> str:
    """Return ``path`` as a value inside a QEMU option: its commas are doubled."""
    return os.fspath(path).replace(",", ",,")
