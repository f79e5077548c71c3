"""Finds what needs a breakpoint in RAM: fences, what orders them, writes of ``satp`` and
``menvcfg``, and ``hsv``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosim.capture.encodings import CSR_WRITES, INTERCEPTED, PATTERNS

_ROWS = [
    row
    for row in PATTERNS
    if (row.kind in INTERCEPTED or row.layout == "guest_store") and row.length == 4
]


def _common_bits() -> tuple[int, int]:
    """Return the mask and match that all patterns share.

    One comparison with them rejects nearly all words.
    """
    mask = 0xFFFF_FFFF
    first = _ROWS[0]
    for row in _ROWS:
        mask &= row.mask & ~(row.match ^ first.match)
    return mask, first.match & mask


_MASK, _MATCH = _common_bits()


def scan(ram: NDArray[np.int64], base: int, first: int, size: int) -> list[int]:
    """Return the physical addresses in ``[first, first + size)`` of all intercepted instructions.

    Compressed code has no alignment, so an instruction may begin at each 2-byte boundary.  Data
    that looks like one is listed too.  That does no harm: nothing executes it.

    :param ram: guest RAM as int64 words; ``base`` is the physical address of ``ram[0]``.
    """
    last = min(first + size, base + ram.nbytes)
    first = max(first, base)
    if last - first < 4:
        return []
    halves = ram.view(np.uint16)[(first - base) >> 1 : (last - base + 2) >> 1]
    # All patterns are of the SYSTEM opcode: the low half alone decides for almost every word.
    low = np.flatnonzero((halves[:-1] & (_MASK & 0xFFFF)) == (_MATCH & 0xFFFF))
    words = halves[low].astype(np.int64) | halves[low + 1].astype(np.int64) << 16
    hit = np.zeros(len(words), dtype=bool)
    for row in _ROWS:
        match = (words & row.mask) == row.match
        if row.kind in CSR_WRITES and not row.name.startswith("csrrw"):
            # csrrs/csrrc with x0 (or an immediate of 0) only read.
            match &= (words >> 15 & 31) != 0
        hit |= match
    return [first + 2 * int(index) for index in low[hit]]
