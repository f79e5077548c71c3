"""Guest RAM: an anonymous memory file that QEMU and we both map."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosim.errors import MachineError
from cosim.machine.configuration import RAM_BASE


class GuestRam:
    """The RAM of one machine.

    The mapping stays readable after :meth:`close`, which only gives up the file.

    :param size: bytes.
    :raises MachineError: when this machine cannot give that much.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create("guest-ram")
        """The open file; QEMU inherits it."""
        try:
            os.ftruncate(self.descriptor, size)
            self.bytes = mmap.mmap(self.descriptor, size)
        except (OSError, ValueError, OverflowError) as error:
            self.close()
            reason = getattr(error, "strerror", None) or error
            raise MachineError(
                f"cannot allocate {size >> 20} MiB of guest RAM ({reason}); use a smaller --memory"
            ) from None

    def words(self) -> NDArray[np.int64]:
        """Return guest RAM as int64 words, shared with QEMU; index 0 is :data:`RAM_BASE`."""
        return np.frombuffer(self.bytes, dtype=np.int64)

    def extents(self) -> list[tuple[int, int]]:
        """Return the parts of guest RAM that hold data, as (physical address, bytes).

        A read anywhere else would make the host allocate pages.
        """
        found = []
        at = 0
        while at < self.size:
            try:
                at = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(self.descriptor, at, os.SEEK_HOLE)
            found.append((RAM_BASE + at, end - at))
            at = end
        return found

    def path(self, pid: int) -> Path:
        """Return a path under which other processes can open guest RAM while ``pid`` has it open.

        :param pid: a process that inherited :attr:`descriptor`.
        """
        return Path(f"/proc/{pid}/fd/{self.descriptor}")

    def close(self) -> None:
        """Close the file; idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
