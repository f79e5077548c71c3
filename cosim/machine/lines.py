"""The lines between us and one QEMU process: socket pairs and pipes that it inherits."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from io import FileIO

End = socket.socket | FileIO
"""One end of a line."""


class Lines:
    """What connects us to one machine.  No line has a name in the file system."""

    def __init__(self) -> None:
        self._ours: dict[str, End] = {}
        self._theirs: dict[str, End] = {}

    def add_pair(self, name: str) -> int:
        """Make the socket pair ``name``; return QEMU's descriptor."""
        self._ours[name], self._theirs[name] = socket.socketpair()
        return self._theirs[name].fileno()

    def add_output(self, name: str) -> int:
        """Make the pipe ``name`` that QEMU writes to; return QEMU's descriptor."""
        ours, theirs = os.pipe()
        self._ours[name], self._theirs[name] = FileIO(ours), FileIO(theirs, "w")
        return theirs

    def add_input(self, name: str) -> int:
        """Make the pipe ``name`` that QEMU reads from; return QEMU's descriptor."""
        theirs, ours = os.pipe()
        self._ours[name], self._theirs[name] = FileIO(ours, "w"), FileIO(theirs)
        return theirs

    def pair(self, name: str) -> socket.socket:
        """Return our end of the socket pair ``name``."""
        end = self._ours[name]
        assert isinstance(end, socket.socket)
        return end

    def pipe(self, name: str) -> FileIO | None:
        """Return our end of the pipe ``name``, or None if it was not made."""
        end = self._ours.get(name)
        assert not isinstance(end, socket.socket)
        return end

    @property
    def inherited(self) -> list[int]:
        """The descriptors that QEMU inherits."""
        return [end.fileno() for end in self._theirs.values()]

    def close_theirs(self) -> None:
        """Close QEMU's ends in our process; idempotent."""
        _close(self._theirs.values())

    def close_ours(self) -> None:
        """Close our ends; idempotent."""
        _close(self._ours.values())


def _close(ends: Iterable[End]) -> None:
    for end in ends:
        end.close()
