"""What page-table entries mean, for whole tables at once.

The order of the checks is that of :mod:`hypervisor_model.walk`, which follows the specification's
steps.  Permissions, A and D depend on the access and are not checked here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.isa import pte

INVALID, LINK, LEAF = range(3)
WRITE_ONLY, RESERVED, LINK_AT_LEAF_LEVEL, LINK_BITS, PBMT, NAPOT, MISALIGNED = range(3, 10)

REASONS: dict[int, str] = {
    INVALID: "V is clear: nothing is mapped",
    WRITE_ONLY: "W is set without R, which is reserved",
    RESERVED: "a reserved bit (54 to 60) is set",
    LINK_AT_LEAF_LEVEL: "R, W and X are clear at level 0, and there is no table below",
    LINK_BITS: "a pointer to a table has U, A, D, PBMT or N set, which is reserved",
    PBMT: "the memory type (PBMT) is reserved, or Svpbmt is off",
    NAPOT: "N is set, but this is no 64 KiB range at level 0, or the machine has no Svnapot",
    MISALIGNED: "the frame of a superpage is not aligned to its size",
}
"""Why an entry can be neither followed nor used, whatever the access."""


def classify(
    entries: NDArray[np.int64], level: int, *, pbmte: bool, svnapot: bool
) -> NDArray[np.uint8]:
    """Return for each entry LINK, LEAF, or the key of :data:`REASONS` that forbids it.

    :param level: of the table that holds them.
    :param pbmte: Svpbmt is on.
    :param svnapot: the machine has Svnapot.
    """
    kinds = np.full(entries.shape, INVALID, np.uint8)
    at = np.nonzero(entries & pte.V)
    e = entries[at]
    ppn = (e >> pte.PPN_SHIFT) & pte.PPN_MASK
    memory_type = (e >> pte.PBMT_SHIFT) & 3
    is_napot = e < 0
    bad_napot = is_napot & ((ppn & 15) != pte.NAPOT_64K)
    if level or not svnapot:
        bad_napot = is_napot
    bad_type = (memory_type == 3) | ((memory_type != 0) & (not pbmte))
    is_link = e & (pte.R | pte.X) == 0
    decorated = e & (pte.U | pte.A | pte.D | pte.PBMT | pte.N) != 0
    kinds[at] = np.select(
        [
            e & (pte.R | pte.W) == pte.W,
            e & pte.RESERVED != 0,
            is_link & (level == 0),
            is_link & decorated,
            is_link,
            bad_type,
            bad_napot,
            ~is_napot & (ppn & ((1 << pte.INDEX_BITS * level) - 1) != 0),
        ],
        [WRITE_ONLY, RESERVED, LINK_AT_LEAF_LEVEL, LINK_BITS, LINK, PBMT, NAPOT, MISALIGNED],
        LEAF,
    )
    return kinds


def targets(entries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the physical address that each entry's PPN names."""
    return ((entries >> pte.PPN_SHIFT) & pte.PPN_MASK) << pte.PAGE_BITS
