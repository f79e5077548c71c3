"""What gdb is told while the guest runs, by a guest that only counts."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from cosim.debug.counted_events import Place
from cosim.debug.gdb_line import Aim, GdbLine
from cosim.debug.rerun import Stop, Why
from cosim.debugger.rsp import StopReply, Stub, frame

TRAP = StopReply(b"T05thread:01;", 5)


class Answers:
    """A stub that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def request(self, payload: bytes) -> bytes:
        self.asked.append(payload)
        return b"OK"


class Guest:
    """Runs to where it is sent."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.stub = cast(Stub, self.answers)
        self.sent: list[Place | None] = []
        self.why = Why.PLACE

    def step(self) -> Stop:
        self.sent.append(None)
        return Stop(Why.STUB, TRAP)

    def run(self, to: Place | None, asked: Callable[[], bool], tell: Any = None) -> Stop:
        self.sent.append(to)
        return Stop(Why.ASKED if asked() else self.why, TRAP)


class Gdb:
    """Speaks as gdb does, without acknowledgements."""

    def __init__(self, line: GdbLine) -> None:
        self._line = line
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(line.path))
        line.serve()
        assert self("QStartNoAckMode") == [b"OK"]

    def __call__(self, payload: str, *, interrupt: bool = False) -> list[bytes]:
        self._socket.sendall(frame(payload.encode()) + (b"\x03" if interrupt else b""))
        while select.select([self._line], [], [], 0)[0]:
            self._line.serve()
        data = b""
        while select.select([self._socket], [], [], 0)[0]:
            data += self._socket.recv(65536)
        return [part.split(b"#")[0] for part in data.replace(b"+", b"").split(b"$")[1:]]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def line() -> Iterator[GdbLine]:
    served = GdbLine(Guest())
    yield served
    served.close()


def test_requests_reach_the_stub_but_the_one_that_drops_breakpoints(line: GdbLine) -> None:
    gdb = Gdb(line)
    assert gdb("g") == [b"OK"]
    assert gdb("?") == [b"T05thread:01;"]
    assert gdb("D;1") == gdb("vKill;1") == [b"OK"]
    assert cast(Guest, line._guest).answers.asked == [b"g"]
    gdb.close()


def test_a_run_goes_to_where_a_rule_says(line: GdbLine) -> None:
    gdb, guest = Gdb(line), cast(Guest, line._guest)
    assert gdb("vCont;c") == [b"T05thread:01;"]
    assert line.reason is None
    line.next_stop = lambda: Aim(Place(9, 0x100), "a fence")
    gdb("vCont;c")
    assert line.reason == "a fence"
    gdb("vCont;s:1")
    assert line.reason is None
    assert guest.sent == [None, Place(9, 0x100), None]
    gdb.close()


def test_a_guest_that_is_not_recorded_has_no_way_back(line: GdbLine) -> None:
    gdb = Gdb(line)
    answers = gdb("bs")
    assert answers[-1].startswith(b"T05replaylog:begin;")
    assert bytes.fromhex(answers[0][1:].decode()).startswith(b"cosim: this guest is not recorded")
    gdb.close()


def test_gdb_may_come_back(line: GdbLine) -> None:
    gdb, guest = Gdb(line), cast(Guest, line._guest)
    gdb("Z0,80200000,4")
    gdb.close()
    line.serve()
    # Its breakpoints went with it.
    assert guest.answers.asked == [b"Z0,80200000,4", b"z0,80200000,4"]
    again = Gdb(line)
    assert again("g") == [b"OK"]
    again.close()
