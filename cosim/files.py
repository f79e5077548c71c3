"""Files that are written whole or not at all, and files that are read whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cosim.errors import StorageError


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of the regular file ``path``.

    A name that we did not make may be a FIFO, on which a reader waits for ever, or a device without
    an end.

    :param path: the file.
    :param most: the largest size that is read, in bytes.
    :raises OSError: when it cannot be read, is no regular file, or is larger.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file has such a name: {error}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return data


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path``, whole or not at all, even if the machine loses power.

    Another process sees the old file or the new one, never a part of it.

    :param path: the file; its folder exists.
    :param data: the content; text is encoded as UTF-8.
    :raises StorageError: when the file cannot be written; what was there before is kept.
    """
    with writing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file for what becomes ``path`` when the context ends, as :func:`write_atomically`.

    If the context ends with an error, ``path`` stays as it was.

    :raises StorageError: when the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
