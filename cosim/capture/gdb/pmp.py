"""Which physical memory S-mode cannot execute: physical memory protection (PMP).

Privileged specification, section "Physical Memory Protection".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

_ENTRIES = 64
_IN_ONE = 8
"""A ``pmpcfg`` register of RV64 has the settings of so many entries; only the even ones exist."""
_R, _W, _X = 1, 2, 4
_OFF, _TOR, _NA4 = 0, 1, 2


class Region(NamedTuple):
    """What one entry covers, and if it denies S-mode to execute there."""

    first: int
    end: int
    closed: bool


def regions(find: Callable[[str], int | None]) -> list[Region]:
    """Return what the PMP entries in use cover; the first one that holds an address decides.

    :param find: returns the value of a register; None if the hart has no such register.
    """
    found = []
    before = 0
    for number in range(_ENTRIES):
        settings = find(f"pmpcfg{number // _IN_ONE * 2}")
        address = find(f"pmpaddr{number}")
        if settings is None or address is None:
            break
        setting = settings >> 8 * (number % _IN_ONE) & 0xFF
        mode = setting >> 3 & 3
        first = end = address << 2
        if mode == _TOR:
            first = before
        elif mode == _NA4:
            end = first + 4
        elif mode != _OFF:
            # NAPOT: k ones at the end of the address stand for 2^(k + 3) bytes.
            size = ((address ^ (address + 1)) + 1) << 2
            first &= -size
            end = first + size
        before = address << 2
        if mode != _OFF:
            # In Smepmp, W without R marks shared memory, which may be executable.
            closed = not setting & _X and setting & (_R | _W) != _W
            found.append(Region(first, end, closed))
    return found


def is_closed(known: Sequence[Region], pa: int) -> bool:
    """Return True if S-mode is certain to fault when it executes the word at ``pa``.

    Where no entry holds the address, nothing is certain: it depends on how many there are.
    """
    return next((one.closed for one in known if one.first <= pa < one.end), False)
