"""When a session through gdb says how long it will take, and what it says."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import pytest

from cosim.run.names import COMMAND_LINE, IN_FILE
from cosim.session.forecast import Forecast, Speed, known_warning, long_rest, warning

_SLOW = Speed(3.0, 1593, 600, 200_000)


def test_a_long_rest_is_told_with_a_way_out() -> None:
    assert _SLOW.rest == 1000.0
    assert warning(_SLOW, math.inf, COMMAND_LINE) == (
        "gdb stops the guest 531 times a second; at this rate its recording ends in about 17 min; "
        "--backend plugin sees the same events in seconds"
    )
    assert warning(_SLOW, 595.0, IN_FILE) == (
        "gdb stops the guest 531 times a second; at this rate its recording ends in about 17 min, "
        "and time_limit leaves 10 min; backend = plugin sees the same events in seconds"
    )


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def _told(
    clock: _Clock, ahead: Forecast, instructions: Iterable[int], stops: int = 50
) -> list[int]:
    """Return at which of these steps, one a second, the user is told.

    :param stops: how many there are in each second.
    """
    told = []
    for second, instruction in enumerate(instructions, 1):
        clock.now += 1.0
        assert ahead.due
        if ahead.update(second * stops, instruction) is not None:
            told.append(second)
    return told


def test_a_guest_that_would_take_ten_minutes_is_told_of_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    ahead = Forecast(1_000_000, 1_000)
    assert not ahead.due and ahead.left is None
    assert _told(clock, ahead, range(2_000, 7_000, 1_000)) == [2]


def test_a_guest_that_something_else_holds_up_is_not_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    ahead = Forecast(1_000_000, 1_000)
    assert _told(clock, ahead, range(2_000, 7_000, 1_000), stops=49) == []


def test_a_shorter_rest_is_told_of_once_if_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    # 70 to 100 s at this speed, and every eighth second without stops.
    ahead = Forecast(100_000, 0)
    bursts = [1_000 * second + 10_000 * (second // 8) for second in range(1, 20)]
    assert _told(clock, ahead, bursts) == []
    ahead = Forecast(100_000, 0)
    assert _told(clock, ahead, range(1_000, 20_000, 1_000)) == [8]


def test_the_speed_is_that_of_the_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    ahead = Forecast(10_000_000, 5_000_000, 100)
    for stops, instruction in ((110, 9_000_000), (641, 9_001_000)):
        clock.now += 1.0
        assert ahead.update(stops, instruction) is None
    clock.now += 1.0
    assert ahead.update(1172, 9_002_000) == Speed(1.0, 531, 1_000, 998_000)


def test_the_rest_follows_the_last_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    ahead = Forecast(1_000, 0)
    clock.now += 2.0
    ahead.update(5, 200)
    assert ahead.left == 8.0
    clock.now += 3.0
    assert ahead.left == 5.0
    clock.now += 30.0
    assert ahead.left == 0.0


def test_a_guest_that_stands_or_is_past_the_end_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    ahead = Forecast(1000, 0)
    for instruction in (1500, 1500, 1600, 1600):
        clock.now += 3.0
        assert ahead.update(7, instruction) is None


def test_what_took_long_the_last_time_is_told_before_it_begins() -> None:
    assert known_warning(59.0, math.inf, COMMAND_LINE) is None
    assert known_warning(2100.0, math.inf, COMMAND_LINE) == (
        "gdb needed about 35 min for this run the last time; "
        "--backend plugin sees the same events in seconds"
    )
    assert known_warning(2100.0, 590.0, COMMAND_LINE) == (
        "gdb needed about 35 min for this run the last time, and --time-limit leaves 10 min; "
        "--backend plugin sees the same events in seconds"
    )


def test_a_long_rest_of_known_events_is_told() -> None:
    assert long_rest(2.0, 10, 1_000_000, COMMAND_LINE) is None, "too early to say"
    assert long_rest(4.0, 5_000, 30_000, COMMAND_LINE) is None, "20 s more are not worth a line"
    assert long_rest(5.0, 10_000, 1_210_000, COMMAND_LINE) == (
        "gdb has come to 10,000 of 1,210,000 events and needs about 10 min for the rest; "
        "--backend plugin sees the same events in seconds"
    )


def test_the_first_events_say_nothing_about_the_rest() -> None:
    # As seen on a busy machine, where Linux then came to 60,000 events in three minutes.
    assert long_rest(3.03, 3, 181_770, COMMAND_LINE) is None
    assert long_rest(3.03, 999, 181_770, COMMAND_LINE) is None
    assert long_rest(3.03, 1_000, 181_770, COMMAND_LINE) is not None
