"""The overlays that QEMU keeps what a guest writes to its disks in (``snapshot=on``).

QEMU deletes an overlay's name as soon as it has opened it, so that nothing is left behind.  The
file is still there as one of QEMU's descriptors.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_NAME = re.compile(r"/vl\.\w{6} \(deleted\)$")
"""How QEMU calls its temporary files."""
_BLOCK = 512
"""Bytes of ``st_blocks``."""


def written(pid: int) -> int:
    """Return how many bytes the overlays of a QEMU take on the host's disk.

    :param pid: its process; 0 bytes if it is gone.
    """
    total = 0
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if _NAME.search(str(descriptor.readlink())):
                    total += _BLOCK * descriptor.stat().st_blocks
    return total
