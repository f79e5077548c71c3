"""The guest's privileged text: where it fences and writes ``satp``."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import product

import numpy as np

from cosim.capture.gdb import instruction_scan
from cosim.capture.gdb.aliases import Aliases
from cosim.capture.gdb.layout import GuestLayout, Range
from cosim.capture.tables import Leaf
from hypervisor_model.isa import pte

_PAGE = pte.PAGE


class GuestText:
    """The intercepted instructions of the guest's privileged text.

    A page is scanned when it becomes executable.  Linux patches read-only text through a second,
    writable mapping (static keys, alternatives), so such text is scanned again while the kernel
    can write to it.  Text that appears in any other way is found by :meth:`late`, perhaps after it
    was executed.
    """

    def __init__(self, layout: GuestLayout) -> None:
        self._ram = layout.ram
        self._base = layout.base
        self._extents = layout.extents
        self._executable = Aliases(pte.X, without=pte.U)
        self._guarded: list[tuple[int, int]] = []
        self._checksums: dict[int, int] = {}
        self._hits: dict[int, set[int]] = defaultdict(set)
        self._rewritten: dict[int, int] = {}

    def learn(self, leaf: Leaf, entry: int) -> set[int]:
        """Take in a leaf; return the virtual addresses of the sites that it makes reachable."""
        _, va, level = leaf
        first = int(pte.target(entry))
        found: set[int] = set()
        if va in self._rewritten:
            found = self._scan_again(self._rewritten.pop(va))
        if self._executable.learn(leaf, entry) and entry & pte.X and not entry & pte.U:
            size = 1 << int(pte.level_bits(level))
            for hit in self.scan(first & -size, size):
                found.add(va + hit - (first & -size))
            if not entry & pte.W:
                self._guarded.append((first & -size, size))
        elif level == 0 and entry & pte.W and not entry & pte.U and self._is_guarded(first):
            self._rewritten[va] = first
        return found

    @property
    def is_rewritten(self) -> bool:
        """True while the kernel can write to text through a second mapping."""
        return bool(self._rewritten)

    def again(self) -> set[int]:
        """Scan the text that the kernel can write to; return the virtual addresses of its sites."""
        found: set[int] = set()
        for page in self._rewritten.values():
            found |= self._scan_again(page)
        return found

    def scan(self, first: int, size: int) -> list[int]:
        """Return the physical addresses of the sites in a range, now and at earlier scans."""
        self._scan([(first, size)])
        pages = [page for page in self._hits if first <= page < first + size]
        return sorted(hit for page in pages for hit in self._hits[page])

    def everywhere(self) -> set[int]:
        """Scan all of RAM; return the physical addresses of the sites that were not known."""
        return self._scan(self._extents())

    def late(self) -> dict[int, int]:
        """Scan all executable text for sites not known before.

        :return: their physical addresses, by their virtual ones.
        """
        found = self._scan(self._executable.ranges())
        return {va + hit % _PAGE: hit for hit in found for va in self._executable.of(hit & -_PAGE)}

    def _scan(self, ranges: Iterable[Range]) -> set[int]:
        """Take in the sites that are in ``ranges`` now; return those that were not known."""
        new: set[int] = set()
        for (first, size), (start, length) in product(ranges, self._extents()):
            # Two bytes more: an instruction may straddle the end of the range.
            low, high = max(first, start), min(first + size + 2, start + length)
            for hit in instruction_scan.scan(self._ram, self._base, low, high - low):
                if hit not in self._hits[hit & -_PAGE]:
                    self._hits[hit & -_PAGE].add(hit)
                    new.add(hit)
        return new

    def _scan_again(self, page: int) -> set[int]:
        # Two bytes more: an instruction may straddle the end of the page.
        start = page - self._base
        checksum = zlib.crc32(self._ram.view(np.uint8)[start : start + _PAGE + 2].data)
        if self._checksums.get(page) == checksum:
            return set()
        self._checksums[page] = checksum
        self._hits[page].update(instruction_scan.scan(self._ram, self._base, page, _PAGE + 2))
        return {va + hit - page for va in self._executable.of(page) for hit in self._hits[page]}

    def _is_guarded(self, page: int) -> bool:
        return any(low <= page < low + size for low, size in self._guarded)
