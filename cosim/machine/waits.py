"""Where a recording must count the instructions around a ``wfi`` one by one.

QEMU translates the code behind a ``wfi`` into the same block, and a hart that waits there counts
the whole block (``helper_wfi`` leaves it without restoring the count).  A breakpoint or a step
splits that block in the re-execution, which then counts less than the recording and waits for ever.

A breakpoint at an odd address never hits, because no pc is odd.  But it makes QEMU run its page
instruction by instruction, and then the count is right.  So the recording and each re-execution of
it have such points at the same places.

That is slow.  It is needed only where the re-execution stops: how much is counted too much depends
on the end of the block alone, and only a breakpoint in its page, or a step over the ``wfi``, moves
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_PAGE = 4096
_LOW, _HIGH = 0x0073, 0x1050
"""The instruction as two halfwords."""
ODD = _PAGE - 1
"""Where in its page a point is."""


class Linked(NamedTuple):
    """A piece of memory that also runs at another address than its physical one."""

    start: int
    """The first physical address."""
    size: int
    """Bytes."""
    virtual: int
    """Where ``start`` runs."""


def pages(ram: NDArray[np.int64], base: int, extents: Iterable[tuple[int, int]]) -> set[int]:
    """Return the physical addresses of the pages in which a ``wfi`` begins.

    Data that looks like one counts, too: a point there costs nothing.

    :param ram: guest RAM as int64 words; ``base`` is the physical address of ``ram[0]``.
    :param extents: the parts of RAM that hold anything, as (physical address, bytes).
    """
    end = base + ram.nbytes
    return {
        page for first, size in extents for page in _pages(ram, base, first, min(first + size, end))
    }


def points(waiting: Iterable[int], linked: Iterable[Linked]) -> set[int]:
    """Return the addresses of the breakpoints that split the blocks in the pages ``waiting``.

    Each page has one at its physical address and one at each other address where it runs.

    >>> sorted(map(hex, points([0x8020_1000], [Linked(0x8020_0000, 0x2000, 0x1000_0000)])))
    ['0x10001fff', '0x80201fff']
    """
    return set(_points(waiting, list(linked)))


def _points(waiting: Iterable[int], linked: list[Linked]) -> Iterator[int]:
    for page in waiting:
        yield page + ODD
        for piece in linked:
            if piece.start < page + _PAGE and page < piece.start + piece.size:
                yield page - piece.start + piece.virtual + ODD


def _pages(ram: NDArray[np.int64], base: int, first: int, end: int) -> set[int]:
    halves = ram.view(np.uint16)[(first - base) >> 1 : (end - base) >> 1]
    low = np.flatnonzero(halves[:-1] == _LOW)
    hits = low[halves[low + 1] == _HIGH]
    # If one straddles the end of a page, its block belongs to the first page.
    return {(first + 2 * int(index)) & -_PAGE for index in hits}


def breakpoints(addresses: Iterable[int]) -> list[bytes]:
    """Return the commands for QEMU's stub that insert breakpoints at ``addresses``."""
    return [b"Z0,%x,4" % address for address in addresses]
