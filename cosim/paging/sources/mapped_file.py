"""A file mapped for reading, with offsets that are checked."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from cosim.errors import DumpError


class MappedFile:
    """The bytes of a regular file.

    :raises DumpError: when it cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Opening a FIFO would wait for its other end.
        if path.exists() and not path.is_file():
            raise DumpError(f"cannot read {path}: it is not a regular file")
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise DumpError(f"cannot read {path}: {why}") from None

    def __len__(self) -> int:
        return len(self.data)

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises DumpError: when the file is too short.
        """
        if not 0 <= offset <= offset + length <= len(self.data):
            raise DumpError(
                f"{self.path} is cut off or damaged: it has {len(self.data):,} bytes, and "
                f"{length:,} at {offset:,} are needed"
            )
        return self.data[offset : offset + length]

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        """Return the numbers at ``offset``, as :func:`struct.unpack` reads them.

        :raises DumpError: when the file is too short.
        """
        return struct.unpack(layout, self.bytes_at(offset, struct.calcsize(layout)))
