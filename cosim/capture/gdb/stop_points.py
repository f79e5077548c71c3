"""The breakpoints and watchpoints that interception holds in QEMU.

Both are virtual in QEMU, so each physical thing of interest has one point for every virtual
address it is reached at: text that fences, by executable kernel mappings; live tables, by
writable mappings of any privilege.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cosim.capture.gdb import instruction_scan
from cosim.capture.tables import Leaf
from cosim.debugger.rsp import Stub
from hypervisor_model.isa import pte

_PAGE = pte.PAGE
_LEVEL_BITS = tuple(int(pte.level_bits(level)) for level in range(5))


class PointSet:
    """Addresses that should have a point of one kind, against those that have one in QEMU.

    Work is done for the addresses that change, never for all: there are hundreds, at every stop.

    :param kind: the type in ``Z`` and ``z`` packets; ``length``: their last field.
    """

    def __init__(self, kind: bytes, length: bytes) -> None:
        self._form = kind + b",%x," + length
        self._wanted: set[int] = set()
        self._inserted: set[int] = set()
        self._changed: set[int] = set()

    def __contains__(self, address: int) -> bool:
        return address in self._wanted

    def __iter__(self) -> Iterator[int]:
        return iter(self._wanted)

    def add(self, addresses: Set[int]) -> None:
        """Want points at ``addresses``, too."""
        self._changed |= addresses - self._wanted
        self._wanted |= addresses

    def remove(self, addresses: Set[int]) -> None:
        """Want no points at ``addresses``."""
        self._changed |= addresses & self._wanted
        self._wanted -= addresses

    def become(self, addresses: Set[int]) -> None:
        """Want points at ``addresses`` and nowhere else."""
        self._changed |= addresses ^ self._wanted
        self._wanted = set(addresses)

    def requests(self) -> list[bytes]:
        """The packets that make the difference good, which is taken as done."""
        if not self._changed:
            return []
        removed = (self._changed & self._inserted) - self._wanted
        added = (self._changed & self._wanted) - self._inserted
        self._changed.clear()
        self._inserted -= removed
        self._inserted |= added
        return [b"z" + self._form % address for address in removed] + [
            b"Z" + self._form % address for address in added
        ]


class Points:
    """What should be inserted: breakpoints, and watchpoints over a whole page each.

    QEMU takes watchpoints of 4,096 bytes.
    """

    def __init__(self) -> None:
        self.breaks = PointSet(b"0", b"4")
        self.watches = PointSet(b"2", b"1000")

    def sync(self, stub: Stub) -> None:
        """Have points inserted and removed until QEMU has what is wanted, with the next request."""
        stub.defer(*self.breaks.requests(), *self.watches.requests())


class Aliases:
    """Under which virtual addresses physical pages can be written, or executed.

    Fed with the leaves that come into sight.  Each is known by where it lies, as two address spaces
    may map one address to different pages.  A mapping is forgotten when its leaf is replaced,
    not when a table above it is unlinked: a point on an address that no longer leads there only
    costs stops, and what it catches is translated before it counts.

    :param permission: ``pte.W`` or ``pte.X``: the mappings of interest.
    :param without: mappings with one of these bits are of none.
    """

    def __init__(self, permission: int, without: int = 0) -> None:
        self._permission = permission
        self._without = without
        self._known: list[dict[int, Counter[int]]] = [defaultdict(Counter) for _ in range(5)]
        self._leads: dict[Leaf, int] = {}

    def learn(self, leaf: Leaf, entry: int) -> bool:
        """Take in the ``entry`` of a leaf; whether that changes what :meth:`of` answers."""
        _, va, level = leaf
        size = 1 << _LEVEL_BITS[level]
        wanted = pte.is_leaf(entry) and entry & self._permission and not entry & self._without
        place = int(pte.target(entry)) & -size if wanted else None
        before = self._leads.get(leaf)
        if place == before:
            return False
        changed = False
        if before is not None:
            known = self._known[level][before]
            known[va] -= 1
            if not known[va]:
                del known[va]
                changed = True
            del self._leads[leaf]
        if place is not None:
            changed |= va not in self._known[level][place]
            self._known[level][place][va] += 1
            self._leads[leaf] = place
        return changed

    def ranges(self) -> list[tuple[int, int]]:
        """The physical (first, bytes) that the mappings lead to."""
        return [
            (place, 1 << bits)
            for bits, mappings in zip(_LEVEL_BITS, self._known, strict=True)
            for place, addresses in mappings.items()
            if addresses
        ]

    def of(self, page: int) -> Iterable[int]:
        """Every virtual address known for the physical page ``page``."""
        for bits, mappings in zip(_LEVEL_BITS, self._known, strict=True):
            start = page & -(1 << bits)
            for va in mappings.get(start, ()):
                yield va + page - start


class Text:
    """The intercepted instructions of the guest's privileged text.

    A page is scanned when it becomes executable.  Text that is mapped read-only is scanned again
    while another mapping lets the kernel write to it: that is how Linux patches its text (static
    keys, alternatives).  Text that appears by any other way is found by :meth:`late`, which may be
    after it was executed.

    :param ram: guest RAM as int64 words; ``base`` is the physical address of ``ram[0]``.
    :param extents: the parts of RAM that hold anything, as (physical address, bytes).
    """

    def __init__(
        self, ram: NDArray[np.int64], base: int, extents: Callable[[], list[tuple[int, int]]]
    ) -> None:
        self._ram = ram
        self._base = base
        self._extents = extents
        self._executable = Aliases(pte.X, without=pte.U)
        self._guarded: list[tuple[int, int]] = []
        self._checksums: dict[int, int] = {}
        self._hits: dict[int, set[int]] = defaultdict(set)
        self._rewritten: dict[int, int] = {}

    def learn(self, leaf: Leaf, entry: int) -> set[int]:
        """A leaf came into sight: the virtual addresses of sites that it makes reachable."""
        _, va, level = leaf
        first = int(pte.target(entry))
        found: set[int] = set()
        if va in self._rewritten:
            found = self._scan_again(self._rewritten.pop(va))
        if self._executable.learn(leaf, entry) and entry & pte.X and not entry & pte.U:
            size = 1 << _LEVEL_BITS[level]
            for hit in self.scan(first & -size, size):
                found.add(va + hit - (first & -size))
            if not entry & pte.W:
                self._guarded.append((first & -size, size))
        elif level == 0 and entry & pte.W and not entry & pte.U and self._is_guarded(first):
            self._rewritten[va] = first
        return found

    def again(self) -> set[int]:
        """Scan the pages that are open for rewriting: virtual addresses of their sites."""
        found: set[int] = set()
        for page in self._rewritten.values():
            found |= self._scan_again(page)
        return found

    def scan(self, first: int, size: int) -> list[int]:
        """Physical addresses of the sites in a range: those there now, and those known before."""
        self._scan([(first, size)])
        pages = [page for page in self._hits if first <= page < first + size]
        return sorted(hit for page in pages for hit in self._hits[page])

    def everywhere(self) -> set[int]:
        """Scan all of RAM: physical addresses of the sites that were not known."""
        return self._scan(self._extents())

    def late(self) -> set[int]:
        """Scan everything executable: virtual addresses of the sites that were not known."""
        found = self._scan(self._executable.ranges())
        return {va + hit % _PAGE for hit in found for va in self._executable.of(hit & -_PAGE)}

    def _scan(self, ranges: Iterable[tuple[int, int]]) -> set[int]:
        """Take in the sites that are in ``ranges`` now; those that were not known."""
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
