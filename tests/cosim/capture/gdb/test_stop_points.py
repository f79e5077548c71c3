"""Points that are wanted, and the packets that insert and remove them."""

from __future__ import annotations

import pytest

from cosim.capture.gdb.stop_points import StopPoints
from cosim.debugger.rsp import parse_stop


class Recorder:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.at_stop: list[bytes] = []

    def defer(self, *payloads: bytes) -> None:
        self.sent += payloads

    def defer_to_stop(self, *payloads: bytes) -> None:
        self.at_stop += payloads


def test_points_are_made_good_with_the_next_request() -> None:
    stub = Recorder()
    points = StopPoints(stub)
    points.breaks.add({0x1000})
    points.watches.become({0x2000, 0xFFFF_0000_0000_3000})
    points.sync()
    assert sorted(stub.sent) == [b"Z0,1000,4", b"Z2,2000,1000", b"Z2,ffff000000003000,1000"]
    stub.sent.clear()
    points.sync()
    assert stub.sent == []
    points.watches.remove({0x2000})
    points.watches.remove({0xFFFF_0000_0000_3000})
    points.watches.add({0xFFFF_0000_0000_3000})
    points.sync()
    assert stub.sent == [b"z2,2000,1000"]


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        (0x2010, [b"2,2000,10", b"2,2018,fe8"]),
        (0x2000, [b"2,2008,ff8"]),
        (0x2FF8, [b"2,2000,ff8"]),
    ],
)
def test_one_entry_is_left_out_until_the_next_stop(entry: int, parts: list[bytes]) -> None:
    stub = Recorder()
    points = StopPoints(stub)
    points.watches.become({0x2000})
    points.sync()
    stub.sent.clear()
    points.leave_out(entry)
    assert stub.sent == [b"z2,2000,1000", *(b"Z" + part for part in parts)]
    assert stub.at_stop == [*(b"z" + part for part in parts), b"Z2,2000,1000"]
    for part in parts:
        stop = parse_stop(b"T05thread:01;watch:" + part.split(b",")[1] + b";")
        assert stop is not None and points.watched_page(stop) == 0x2000
        assert points.own(stop, 0)
    theirs = parse_stop(b"T05thread:01;watch:2020;")
    assert theirs is not None and not points.own(theirs, 0)
    points.sync()
    assert not points.own(parse_stop(b"T05thread:01;watch:%x;" % (entry + 8)), 0)


def test_the_page_behind_the_last_entry_is_another_one() -> None:
    points = StopPoints(Recorder())
    points.watches.become({0x2000, 0x3000})
    points.leave_out(0x2FF8)
    stop = parse_stop(b"T05thread:01;watch:3000;")
    assert stop is not None and points.watched_page(stop) == 0x3000
