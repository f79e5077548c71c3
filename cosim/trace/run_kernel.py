"""The kernel that a run had, from what its result or its trace says of the guest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosim.errors import CosimError
from cosim.kernel import symbols
from guest.spec import checksum


def kernel_of(guest: Mapping[str, Any]) -> Path | None:
    """Return the kernel of a run; None if its file is not there any more or has changed.

    :param guest: the part ``guest`` of the run's result.
    """
    path, digests = guest.get("kernel"), guest.get("sha256")
    if not isinstance(path, str) or not isinstance(digests, dict):
        return None
    try:
        if Path(path).is_file() and checksum(Path(path)) == digests.get("kernel"):
            return Path(path)
    except (OSError, ValueError):
        pass
    return None


def symbols_of(guest: Mapping[str, Any]) -> symbols.Symbols | None:
    """Return the symbols of a run's kernel; None if there is no :func:`kernel_of` the run."""
    path = kernel_of(guest)
    try:
        return None if path is None else symbols.load(path)
    except (OSError, CosimError):
        return None
