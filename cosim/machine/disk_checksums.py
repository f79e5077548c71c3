"""SHA-256 of disk images: with progress, holes not read, each file read once in a process."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

Read = Callable[[int], None]
"""Is told how many bytes of a file are done."""

_PIECE = 4 << 20
_known: dict[tuple[int, ...], str] = {}
"""By what tells that a file is still the same: device, inode, size, and time of the last change."""


def nobody(_: int) -> None:
    """Take note of no progress."""


def sha256(path: Path, read: Read = nobody) -> str:
    """Return the SHA-256 of the file, as ``sha256sum`` prints it.

    :param read: is told about the progress; not if the checksum is known already.
    :raises OSError: when the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if key not in _known:
            total = hashlib.sha256()
            done = 0
            for piece in _pieces(file, state.st_size):
                total.update(piece)
                done += len(piece)
                read(done)
            _known[key] = total.hexdigest()
        return _known[key]


def _pieces(file: FileIO, size: int) -> Iterator[memoryview]:
    """Yield the content of a file of ``size`` bytes.  A hole is not read: it is zeros."""
    buffer = memoryview(bytearray(_PIECE))
    zeros = memoryview(bytes(_PIECE))
    at = 0
    while at < size:
        data = _data_from(file, at, size)
        while at < data:
            yield zeros[: data - at]
            at += min(data - at, _PIECE)
        end = _hole_from(file, at, size)
        file.seek(at)
        while at < end:
            count = file.readinto(buffer[: end - at])
            if not count:
                # The file became shorter.
                return
            yield buffer[:count]
            at += count


def _data_from(file: FileIO, at: int, size: int) -> int:
    """Return where the first byte from ``at`` on is that is not in a hole."""
    try:
        return file.seek(at, os.SEEK_DATA)
    except OSError as error:
        # ENXIO: there is none.  Anything else: the file system does not tell.
        return size if error.errno == errno.ENXIO else at


def _hole_from(file: FileIO, at: int, size: int) -> int:
    """Return where the first hole from ``at`` on begins; the end of the file counts as one."""
    try:
        return file.seek(at, os.SEEK_HOLE)
    except OSError:
        return size
