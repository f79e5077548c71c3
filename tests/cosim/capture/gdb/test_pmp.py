"""PMP entries as the privileged specification encodes them."""

from __future__ import annotations

import pytest

from cosim.capture.gdb import pmp

R, W, X = 1, 2, 4
TOR, NA4, NAPOT = 1 << 3, 2 << 3, 3 << 3
LOCKED = 1 << 7


def regions(*entries: tuple[int, int], count: int = 16) -> list[pmp.Region]:
    """Return what entries of (setting, pmpaddr) cover, on a hart with ``count`` of them."""
    known = {f"pmpaddr{number}": 0 for number in range(count)}
    known |= {f"pmpcfg{number // 8 * 2}": 0 for number in range(count)}
    for number, (setting, address) in enumerate(entries):
        known[f"pmpcfg{number // 8 * 2}"] |= setting << 8 * (number % 8)
        known[f"pmpaddr{number}"] = address
    return pmp.regions(known.get)


def test_what_each_mode_covers() -> None:
    assert regions((TOR | X, 0x8004_0000 >> 2)) == [pmp.Region(0, 0x8004_0000, False)]
    assert regions((0, 0x1000 >> 2), (TOR, 0x3000 >> 2)) == [pmp.Region(0x1000, 0x3000, True)]
    assert regions((NA4 | R, 0x2000 >> 2)) == [pmp.Region(0x2000, 0x2004, True)]
    # 2^13 bytes at 0x80002000; the whole address space.
    assert regions((NAPOT, 0x8000_2000 >> 2 | 0x3FF)) == [
        pmp.Region(0x8000_2000, 0x8000_4000, True)
    ]
    ((first, end, closed),) = regions((NAPOT | R | W | X, (1 << 54) - 1))
    assert (first, closed) == (0, False) and end > 1 << 56


def test_entries_of_the_second_register() -> None:
    empty = [(0, 0)] * 9
    assert regions(*empty, (NA4, 0x2000 >> 2)) == [pmp.Region(0x2000, 0x2004, True)]


def test_as_opensbi_sets_them() -> None:
    """Its code, then its data, then all the rest."""
    known = regions(
        (NAPOT, 0x8000_0000 >> 2 | 0x7FFF),
        (NAPOT, 0x8004_0000 >> 2 | 0x3FFF),
        (NAPOT | R | W | X, (1 << 54) - 1),
    )
    assert pmp.is_closed(known, 0x8000_0000)
    assert pmp.is_closed(known, 0x8004_7D58)
    assert not pmp.is_closed(known, 0x8020_0000)


@pytest.mark.parametrize("setting", [0, R, R | W, LOCKED])
def test_without_x_nothing_is_executed(setting: int) -> None:
    assert pmp.is_closed(regions((NA4 | setting, 0x2000 >> 2)), 0x2002)


@pytest.mark.parametrize("setting", [X, R | X, W, W | LOCKED])
def test_what_may_be_executed(setting: int) -> None:
    """W without R is shared code in Smepmp."""
    assert not pmp.is_closed(regions((NA4 | setting, 0x2000 >> 2)), 0x2000)


def test_no_entry_holds_it() -> None:
    assert not pmp.is_closed(regions((NA4, 0x2000 >> 2)), 0x2004)
    assert pmp.regions(lambda name: None) == []
