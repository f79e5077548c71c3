"""Physical memory as the models see it: one flat range of RAM, read as 8-byte words.

Inside kernels memory is a :class:`Ram`.  :class:`GuestMemory` owns one: either the model's own
copy of the guest's page tables, kept up to date from events (:func:`apply`), or an image of real
RAM (a file; the RAM of a live session) that is mapped, not copied.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.errors import ModelError
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.isa.pte import ENTRIES
from hypervisor_model.jit import kernel

_TABLE_ADD = int(Kind.TABLE_ADD)
_TABLE_ENTRY = int(Kind.TABLE_ENTRY)
_PTE_WRITE = int(Kind.PTE_WRITE)
_MAP_NORESERVE = 0x4000
"""Of Linux; Python 3.11 has no name for it.  The host then sets nothing aside for pages that are
never touched."""


class Ram(NamedTuple):
    """RAM inside kernels: ``words[i]`` is the int64 at physical address ``base + 8 * i``."""

    words: NDArray[np.int64]
    base: int


@kernel
def holds(ram: Ram, pa: int) -> bool:
    """Return True if the physical address lies in this RAM."""
    return ram.base <= pa < ram.base + (ram.words.shape[0] << 3)  # type: ignore[no-any-return]


@kernel
def load(ram: Ram, pa: int) -> int:
    """Return the aligned word that ``pa`` lies in; the caller has asked :func:`holds`."""
    return ram.words[(pa - ram.base) >> 3]  # type: ignore[no-any-return]


@kernel
def store(ram: Ram, pa: int, value: int) -> None:
    """Store the aligned word that ``pa`` lies in; the caller has asked :func:`holds`."""
    ram.words[(pa - ram.base) >> 3] = value


@kernel
def apply(ram: Ram, kind: int, a: int, c: int) -> None:
    """Bring the table memory up to date with one event (its ``kind``, ``a`` and ``c``).

    TABLE_ADD clears the page, TABLE_ENTRY and PTE_WRITE store one entry; every other kind, and an
    address outside RAM, changes nothing.  A dropped table keeps its last content: nothing can
    reach it, and TABLE_ADD clears it before it is used again.
    """
    if not holds(ram, a):
        return
    if kind in (_PTE_WRITE, _TABLE_ENTRY):
        store(ram, a, c)
    elif kind == _TABLE_ADD:
        first = ((a - ram.base) >> 12) * ENTRIES
        ram.words[first : first + ENTRIES] = 0


@kernel
def _apply_batch(
    ram: Ram, kind: NDArray[np.uint8], a: NDArray[np.int64], c: NDArray[np.int64]
) -> None:
    for i in range(kind.shape[0]):
        apply(ram, np.int64(kind[i]), a[i], c[i])  # type: ignore[arg-type]


def sparse(*shape: int) -> NDArray[np.int64]:
    """Return an int64 array of zeros whose untouched 4 KiB pages cost nothing.

    NumPy asks for 2 MiB pages for large arrays.  Page tables lie scattered over the guest's RAM,
    so that nearly all of it would be allocated, and cleared, for a few pages in use.
    """
    count = math.prod(shape)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    pages = mmap.mmap(-1, max(8 * count, 1), flags=flags)
    with contextlib.suppress(OSError):
        # Refused by a kernel without huge pages, which then needs no telling.
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=np.int64, count=count).reshape(shape)


class GuestMemory:
    """RAM of ``size`` bytes at physical address ``base``, zero at first.

    Untouched pages cost nothing, so every policy can have one as large as its guest's RAM.

    :raises ModelError: when ``base`` or ``size`` is no multiple of 4 KiB, or beyond 56-bit
        addresses.
    """

    def __init__(self, base: int, size: int) -> None:
        _check(base, size)
        self.ram = Ram(sparse(size >> 3), base)

    @classmethod
    def map_image(cls, path: Path, base: int) -> GuestMemory:
        """Map the file ``path`` as the RAM at ``base``, without copying.

        Stores stay private: they do not reach the file.

        :raises ModelError: when the file is empty, no multiple of 4 KiB long or cannot be read.
        """
        # Opening a FIFO would wait for its other end.
        if path.exists() and not path.is_file():
            raise ModelError(f"cannot map the RAM image {path}: it is not a regular file")
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ModelError(f"cannot map the RAM image {path}: {why}") from error
        _check(base, len(mapped))
        memory = cls.__new__(cls)
        memory.ram = Ram(np.frombuffer(mapped, dtype=np.int64), base)
        return memory

    @property
    def base(self) -> int:
        """Physical address of the first byte."""
        return self.ram.base

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return self.ram.words.nbytes

    @property
    def words(self) -> NDArray[np.int64]:
        """The RAM itself, 8 bytes an element."""
        return self.ram.words

    def feed(self, batch: EventBatch) -> None:
        """Apply the events that change tables (see :func:`apply`), in order."""
        _apply_batch(
            self.ram,
            np.ascontiguousarray(batch["kind"]),
            np.ascontiguousarray(batch["a"]),
            np.ascontiguousarray(batch["c"]),
        )

    def read(self, pa: int) -> int:
        """Return the int64 at the 8-byte word of ``pa``.

        :raises ModelError: when ``pa`` is outside.
        """
        self._inside(pa)
        return int(load(self.ram, pa))

    def write(self, pa: int, value: int) -> None:
        """Store the int64 ``value`` at the 8-byte word of ``pa``.

        :raises ModelError: when ``pa`` is outside.
        """
        self._inside(pa)
        store(self.ram, pa, value)

    def _inside(self, pa: int) -> None:
        if not holds(self.ram, pa):
            end = self.base + self.size
            raise ModelError(f"{pa:#x} is outside of RAM at {self.base:#x}..{end:#x}")


def _check(base: int, size: int) -> None:
    if base % 4096 or size % 4096 or size <= 0 or base < 0 or base + size > 1 << 56:
        raise ModelError(
            f"RAM of {size:#x} bytes at {base:#x}: both must be multiples of 4096 below 2**56"
        )
