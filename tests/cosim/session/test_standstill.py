"""When a re-execution counts as one that stands still."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from cosim.machine import process
from cosim.machine.qemu import Machine
from cosim.session.standstill import Standstill

_STEP = 0.25
"""Seconds between two looks."""


class _Waiting:
    """A guest that is at instruction 1000, and waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, typed: bool = False) -> None:
        self.now = 100.0
        self.ticks, self.asleep, self.going, self.instruction = 0, True, True, 1000
        self.stops = 0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(process, "cpu_ticks", lambda _: self.ticks)
        monkeypatch.setattr(process, "asleep", lambda _: self.asleep)
        parts = {"timing": SimpleNamespace(typed=typed), "pid": 1}
        parts |= {"running": lambda: self.going, "replay_icount": lambda: self.instruction}
        self.watch = Standstill(cast(Machine, SimpleNamespace(**parts)))

    def look(self) -> int | None:
        self.now += _STEP
        return self.watch.at(self.stops)

    def noticed_after(self) -> float:
        """Return the seconds until it is noticed that the guest stands still."""
        began = self.now
        while self.look() is None:
            assert self.now < began + 100
        return self.now - began


def test_it_is_noticed_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = _Waiting(monkeypatch)
    assert 3 < guest.noticed_after() < 4
    assert guest.look() == 1000


def test_a_guest_that_was_typed_into_may_be_idle_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 30 < _Waiting(monkeypatch, typed=True).noticed_after() < 31


@pytest.mark.parametrize("what", ["ticks", "asleep", "going", "instruction", "stops"])
def test_a_guest_that_does_something_does_not_stand_still(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = _Waiting(monkeypatch)
    for number in range(100):
        if what in ("asleep", "going"):
            setattr(guest, what, False)
        else:
            setattr(guest, what, 5 * number)
        assert guest.look() is None
