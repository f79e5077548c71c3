"""Which pages with a wait are split: those in which the re-execution stops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cosim.capture import marks
from cosim.machine.configuration import RAM_BASE
from cosim.machine.qemu import Machine
from cosim.machine.waits import Linked
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session.splits import Splits

_WFI, _SFENCE, _CSRW_SATP = 0x1050_0073, 0x1200_0073, 0x1802_9073
_HIGH = 0xFFFF_FFFF_8000_0000
_BOOT, _OFF = Edge("boot", "boot"), Edge("power-off", "power-off")


def _at(address: int) -> Edge:
    return Edge("address", hex(address), address=address)


class _Machine:
    """RAM of four pages: a wait alone, one beside a fence, one before a satp write, and a fence."""

    def __init__(self) -> None:
        words = np.zeros(4 * 1024, np.uint32)
        words[[5, 1024 + 5, 2 * 1024 + 5]] = _WFI
        words[[1024 + 9, 3 * 1024]] = _SFENCE
        # It begins with the last two bytes of its page.
        halves = words.view(np.uint16)
        halves[3 * 2048 - 1], halves[3 * 2048] = _CSRW_SATP & 0xFFFF, _CSRW_SATP >> 16
        self.words = words.view(np.int64)

    def ram_words(self) -> Any:
        return self.words

    def ram_extents(self) -> list[tuple[int, int]]:
        return [(RAM_BASE, self.words.nbytes)]

    @staticmethod
    def alive() -> bool:
        return True


def _splits(
    *, everywhere: bool = False, begin: Edge = _BOOT, mark: int = marks.USER_MARK
) -> Splits:
    machine = SimpleNamespace(linked=(Linked(RAM_BASE, 0x4000, _HIGH),))
    parts = {"machine": machine, "begin": begin, "end": _OFF, "mark_at": mark}
    return Splits(cast(Plan, SimpleNamespace(**parts)), everywhere=everywhere)


def _pages(points: frozenset[int]) -> list[int]:
    """The pages of the points, each of which is at both addresses of its page."""
    assert all(point & 0xFFF == 0xFFF for point in points)
    low = sorted(point >> 12 for point in points if point < _HIGH)
    assert {_HIGH | page << 12 & 0xFFFF_FFF | 0xFFF for page in low} == {
        point for point in points if point >= _HIGH
    }
    return [page - (RAM_BASE >> 12) for page in low]


def test_a_page_is_split_if_something_in_it_is_intercepted() -> None:
    machine = cast(Machine, _Machine())
    assert _pages(_splits().first(machine)) == [1, 2]
    assert _pages(_splits(everywhere=True).first(machine)) == [0, 1, 2]


@pytest.mark.parametrize("base", [RAM_BASE, _HIGH])
def test_edges_and_marks_count(base: int) -> None:
    machine = cast(Machine, _Machine())
    assert _pages(_splits(begin=_at(base + 0x100)).first(machine)) == [0, 1, 2]
    assert _pages(_splits(mark=base + 0x100).first(machine)) == [0, 1, 2]
    assert _pages(_splits(mark=base + 0x3000).first(machine)) == [1, 2]


def test_nothing_is_new_if_nothing_came() -> None:
    machine = cast(Machine, _Machine())
    for splits in (_splits(), _splits(everywhere=True)):
        assert splits.fresh(machine, splits.first(machine)) == frozenset()


def test_the_place_of_a_loop() -> None:
    machine = cast(Machine, _Machine())
    split = _splits().first(machine)
    assert _splits().at(_HIGH + 0x20, machine, split) == {_HIGH + 0xFFF}
    for known in (_HIGH + 0x1020, _HIGH + 0x3020):
        assert _splits().at(known, machine, split) == frozenset()
