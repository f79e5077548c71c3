"""RAM with instructions and leaves in it, for the tests of scans and mappings."""

from __future__ import annotations

import numpy as np

from cosim.capture.tables import Leaf

BASE = 0x8000_0000
SFENCE, SFENCE_VA, SINVAL = 0x1200_0073, 0x1205_0073, 0x16B5_0073
CSRW_SATP, CSRR_SATP, CSRRSI_SATP = 0x1807_9073, 0x1800_27F3, 0x1800_E073
HLV_D, HSV_D = 0x6C05_C573, 0x6EA5_C073
NOP = 0x0000_0013


def ram(pages: int = 8) -> np.ndarray:
    return np.zeros(pages * 512, dtype=np.int64)


def put(memory: np.ndarray, at: int, word: int) -> None:
    memory.view(np.uint16)[(at - BASE) >> 1 : ((at - BASE) >> 1) + 2] = word & 0xFFFF, word >> 16


def leaf(pa: int, flags: int) -> int:
    return pa >> 2 | flags


def at(va: int, level: int = 0, table: int = BASE + 0x7000) -> Leaf:
    """The leaf at ``va`` in a table."""
    return table + 8 * (va >> 12 + 9 * level & 511), va, level
