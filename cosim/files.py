"""Writing files that others read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cosim.errors import StorageError


def write_whole(path: Path, text: str) -> int:
    """Write ``path`` whole or not at all, and return its size in bytes.

    :raises StorageError: when it cannot be written.
    """
    data = text.encode()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
    return len(data)
