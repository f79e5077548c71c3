"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from cosim.errors import StorageError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path``, whole or not at all, even if the machine loses power.

    Another process sees the old file or the new one, never a part of it.

    :param path: the file; its folder exists.
    :param data: the content; text is encoded as UTF-8.
    :raises StorageError: when the file cannot be written; what was there before is kept.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
