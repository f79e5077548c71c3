"""Physical memory to read tables from: live RAM, a dump, a debugger's stub."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cosim.errors import UnreadableMemory
from hypervisor_model.isa.pte import ENTRIES, PAGE
from hypervisor_model.jit import signed

_NO_ASCII = signed(0x8080_8080_8080_8080)


class PhysicalMemory(ABC):
    """Memory at physical addresses, of which parts may be missing."""

    @property
    @abstractmethod
    def span(self) -> tuple[int, int]:
        """The lowest address that may be readable, and the end behind the highest."""

    @abstractmethod
    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises UnreadableMemory: when one of them cannot be read.
        """

    def tables(self, pages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the entries of table pages, and which of the pages could be read.

        :param pages: physical addresses, multiples of 4 KiB.
        :return: an array of shape (n, 512), 0 in pages that cannot be read, and one of shape (n).
        """
        entries = np.zeros((len(pages), ENTRIES), np.int64)
        readable = np.zeros(len(pages), np.bool_)
        for row, address in enumerate(pages.tolist()):
            try:
                entries[row] = np.frombuffer(self.read(address, PAGE), "<i8")
                readable[row] = True
            except UnreadableMemory:
                pass
        return entries, readable

    def heads(self, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield the address and the first bytes of each page, if pages can be listed at all."""
        return iter(())


class RamWords(PhysicalMemory):
    """Memory that is one array, for example the RAM that QEMU shares, or a mapped file.

    :param words: 8 bytes an element.
    :param base: physical address of the first one, a multiple of 4 KiB.
    """

    def __init__(self, words: NDArray[np.int64], base: int) -> None:
        self._pages = words[: len(words) // ENTRIES * ENTRIES].reshape(-1, ENTRIES)
        self._bytes = words.view(np.uint8)
        self._base = base

    @property
    def span(self) -> tuple[int, int]:
        """The first address, and the end."""
        return self._base, self._base + len(self._bytes)

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises UnreadableMemory: when one of them is outside.
        """
        first = address - self._base
        if first < 0 or first + length > len(self._bytes):
            low, end = self.span
            raise UnreadableMemory(f"{address:#x} is outside of RAM at {low:#x}..{end:#x}")
        return self._bytes[first : first + length].tobytes()

    def tables(self, pages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the entries of table pages, and which of the pages are inside."""
        numbers = (pages - self._base) >> 12
        readable = (numbers >= 0) & (numbers < len(self._pages))
        entries = self._pages[np.where(readable, numbers, 0)]
        entries[~readable] = 0
        return entries, readable

    def heads(self, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield the address and the first bytes of each page that begins like a text."""
        # RAM is large; a word that is zero or no ASCII text is skipped without a look by Python.
        first = self._pages[:, 0]
        for row in np.flatnonzero((first != 0) & (first & _NO_ASCII == 0)).tolist():
            yield self._base + row * PAGE, self._pages[row].tobytes()[:length]
