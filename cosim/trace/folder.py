"""A trace in a folder of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cosim.errors import StorageError, UsageError
from cosim.files import read_regular, write_atomically
from cosim.trace.location import MANIFEST, SEGMENTS, Location, Output


def location(place: Path | Location) -> Location:
    """Return ``place`` as a location; a path names a folder of this machine."""
    return Folder(place) if isinstance(place, Path) else place


class Folder:
    """A folder; see :class:`cosim.trace.location.Location`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def shown(self, name: str) -> str:
        """Return the path of ``name``."""
        return str(self.path / name)

    def read(self, name: str, most: int) -> bytes:
        """Return the content of the regular file ``name``.

        :raises OSError: when it cannot be read, is no regular file, or is larger than ``most``.
        """
        return read_regular(self.path / name, most)

    def segments(self) -> list[str]:
        """Return the names that segments have, whole or in the making, in order."""
        return sorted(path.name for path in self.path.glob(SEGMENTS))

    def for_scan(self, names: Sequence[str], stack: ExitStack) -> tuple[list[str], Any]:
        """Return the files ``names`` for a dataset of pyarrow: their paths and its file system."""
        # pyarrow takes only names in UTF-8, so it gets the folder by its number.
        number = os.open(self.path, os.O_PATH)
        stack.callback(os.close, number)
        return [f"/proc/self/fd/{number}/{name}" for name in names], None

    def lost_while_scanned(self, text: str) -> None:
        """Return None: a folder is not lost."""

    def why_no_trace(self) -> str:
        """Say why there is no trace, if its manifest is not there."""
        folder = self.path
        if not folder.exists():
            return f"{folder}: no such folder"
        if not folder.is_dir():
            return f"{folder}: is a file; a trace is the folder that `cosim capture -o DIR` wrote"
        if any(folder.glob("*.parquet")):
            return f"{folder}: holds Parquet files but no {MANIFEST}: not a trace of cosim"
        return (
            f"{folder}: holds no {MANIFEST}: not a trace; `cosim capture GUEST -o DIR` writes one"
        )

    def check_unused(self) -> None:
        """Check that there is no trace.

        :raises UsageError: when there is one.
        """
        if (self.path / MANIFEST).exists():
            raise UsageError(f"{self.path} already holds a trace; name another folder")

    def begin(self) -> Output:
        """Begin a trace; the folder is made if it is not there.

        :raises UsageError: when it holds a trace or is a file.
        :raises OSError: when it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.segments():
                raise FileExistsError
            return _Output(self.path)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(
                f"{self.path}: holds a trace already or is a file; name a new folder"
            ) from None


class _Output:
    """Writes to a folder.  A line of the manifest is on the device whole, or not there at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(folder / MANIFEST, flags, 0o666)
        self._length = 0

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def store(self, name: str, data: bytes) -> None:
        try:
            write_atomically(self._folder / name, data)
        except StorageError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        self._sync_folder()

    def append(self, line: bytes, *, now: bool = True) -> None:
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(self._fd, line[done:], self._length + done)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._length)
            raise
        if not self._length:
            self._sync_folder()
        self._length += len(line)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        self.close()
        (self._folder / MANIFEST).unlink()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
