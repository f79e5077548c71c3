"""Page-table entries: bits, fields and the kernels that take them apart.

Source: privileged specification, "Sv39: Page-Based 39-bit Virtual-Memory System" (Sv48 and Sv57
share the entry format), "Svnapot" and "Svpbmt".  Entries are int64 bit patterns, so an entry with
N set is negative; every field is masked after its shift.
"""

from __future__ import annotations

from hypervisor_model.jit import kernel, signed

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
"""Valid, read, write, execute, user, global, accessed, dirty: bits 0..7 of an entry."""

PERMISSIONS = 0xFF
"""Mask of bits 0..7, which is what the models keep as "permissions"."""

PPN_SHIFT = 10
PPN_MASK = (1 << 44) - 1

RESERVED = 0x7F << 54
"""Bits 54..60: reserved for future standard use, an entry that has one set faults."""

PBMT_SHIFT = 61
PBMT = signed(3 << PBMT_SHIFT)
"""Svpbmt's field: 0 = PMA, 1 = NC, 2 = IO, 3 = reserved."""

N = signed(1 << 63)
"""Svnapot: the entry is part of a naturally aligned power-of-two range."""

NAPOT_64K = 0b1000
"""The one defined value of ``ppn[3:0]`` if N is set: a 64 KiB range."""

ENTRIES = 512
"""Entries in a table page (the root of a G-stage has four times as many)."""

PAGE = 4096
PAGE_BITS = 12
NAPOT_BITS = 16
INDEX_BITS = 9
"""Bits of address that one level below the root translates."""


@kernel
def target(entry: int) -> int:
    """Return the PA that the entry's PPN names: of the next table, or of a 4 KiB leaf."""
    return ((entry >> PPN_SHIFT) & PPN_MASK) << PAGE_BITS


@kernel
def is_leaf(entry: int) -> bool:
    """Return True if a valid entry maps a page (R or X set)."""
    return (entry & V) != 0 and (entry & (R | X)) != 0


@kernel
def is_link(entry: int) -> bool:
    """Return True if an entry above level 0 points to a table: V, no R/W/X, no reserved bit."""
    return (entry & (V | R | W | X | U | A | D | RESERVED | PBMT | N)) == V


@kernel
def level_bits(level: int) -> int:
    """log2 of the size of a page that a leaf at ``level`` maps (level 0 = 4 KiB)."""
    return PAGE_BITS + INDEX_BITS * level
