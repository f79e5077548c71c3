"""Under which virtual addresses a physical page is reached."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from cosim.capture.tables import Leaf
from hypervisor_model.isa import pte
from hypervisor_model.jit import plain

_is_leaf, _target = plain(pte.is_leaf), plain(pte.target)
_LEVEL_BITS = tuple(map(plain(pte.level_bits), range(5)))


class Aliases:
    """The virtual addresses that write to a physical page, or execute it.

    It learns each leaf that comes into sight.  A leaf is known by its own place, because two
    address spaces may map one virtual address to different pages.  A mapping is forgotten when
    its leaf is replaced.  It is not forgotten when a table above it is unlinked: a point on an
    address that leads elsewhere only costs stops, and each stop translates the address again.

    :param permission: ``pte.W`` or ``pte.X``: which mappings count.
    :param without: mappings with one of these bits do not count.
    """

    def __init__(self, permission: int, without: int = 0) -> None:
        self._permission = permission
        self._without = without
        self._known: list[dict[int, Counter[int]]] = [defaultdict(Counter) for _ in range(5)]
        self._leads: dict[Leaf, int] = {}

    def learn(self, leaf: Leaf, entry: int) -> list[tuple[int, int]]:
        """Take in the ``entry`` of a leaf.

        :return: the physical ranges (first address, bytes) for which :meth:`of` answers otherwise
            now.
        """
        _, va, level = leaf
        size = 1 << _LEVEL_BITS[level]
        wanted = _is_leaf(entry) and entry & self._permission and not entry & self._without
        place = _target(entry) & -size if wanted else None
        before = self._leads.get(leaf)
        if place == before:
            return []
        changed = []
        if before is not None:
            known = self._known[level][before]
            known[va] -= 1
            if not known[va]:
                del known[va]
                changed.append((before, size))
            del self._leads[leaf]
        if place is not None:
            if va not in self._known[level][place]:
                changed.append((place, size))
            self._known[level][place][va] += 1
            self._leads[leaf] = place
        return changed

    def ranges(self) -> list[tuple[int, int]]:
        """Return the physical ranges that the mappings lead to."""
        return [
            (place, 1 << bits)
            for bits, mappings in zip(_LEVEL_BITS, self._known, strict=True)
            for place, addresses in mappings.items()
            if addresses
        ]

    def of(self, page: int) -> Iterable[int]:
        """Yield each virtual address known for the physical page ``page``."""
        for bits, mappings in zip(_LEVEL_BITS, self._known, strict=True):
            start = page & -(1 << bits)
            for va in mappings.get(start, ()):
                yield va + page - start
