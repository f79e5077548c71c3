"""What stands between the user's gdb and QEMU's stub.

gdb's requests are passed on, except those that let the guest run or go back.  For gdb the recording
is a target that runs in both directions: ``reverse-stepi`` and ``reverse-continue`` work, and so do
the stops that ``paging`` commands ask for.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from cosim.debug.counted_events import Place
from cosim.debug.rerun import Rerun, Stop, Tell, Why
from cosim.debugger.gdb_side import GdbSide
from cosim.debugger.rsp import INTERRUPT, Stub
from cosim.errors import CosimError, StorageError

_AT_BEGIN = b"T05replaylog:begin;thread:01;"
_AT_END = b"T05replaylog:end;thread:01;"
_TRAP = b"T05thread:01;"
_INTERRUPTED = b"T02thread:01;"
_SILENT_SECONDS = 1.0
_PROGRESS_COLUMNS = 60
_INSERTS = (b"Z0", b"Z1", b"Z2", b"Z3", b"Z4")


class Aim(NamedTuple):
    """Where a run is to stop, and why."""

    place: Place
    reason: str
    event: int | None = None
    """The event whose instruction is there."""


class Guest(Protocol):
    """What is debugged: the guest that runs, or the re-execution of a recording."""

    stub: Stub

    def step(self) -> Stop:
        """Let the guest execute one instruction."""

    def run(self, to: Place | None, asked: Callable[[], bool], tell: Tell | None = None) -> Stop:
        """Let the guest run to ``to``, or to what stops it before."""


class GdbLine:
    """Serves the user's gdb.

    :param guest: what is debugged.
    :param shows_progress: show how far a long way is, in one line that is written over.
    """

    def __init__(self, guest: Guest, *, shows_progress: bool = False) -> None:
        self._guest = guest
        self.shows_progress = shows_progress
        self._gdb: GdbSide | None = None
        self._points: dict[bytes, bytes] = {}
        """What gdb has inserted: the packet, by what follows its first letter."""
        self._last = _TRAP
        self.reason: str | None = None
        """Why the guest stopped last, if it was not gdb's doing."""
        self.aim: Aim | None = None
        """Where the next ``reverse-stepi`` goes."""
        self.next_stop: Callable[[], Aim | None] = lambda: None
        """Returns where the guest stops next, because a ``paging`` command asked for it."""
        self.previous: Callable[[], Place | None] = lambda: None
        """Returns the place of the instruction before the one where the guest is."""
        self.on_event: Callable[[int, Place], None] = lambda event, place: None
        """Is told at which place an event was met."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "gdb"
        """What gdb connects to; it is gone as soon as gdb has connected."""
        try:
            self._listener.bind(str(self.path))
            self._listener.listen(1)
        except OSError as error:
            self.close()
            raise StorageError(f"cannot make a socket in {self.path.parent}: {error}") from None

    def close(self) -> None:
        """Close the line; idempotent."""
        if self._gdb is not None:
            self._gdb.close()
            self._gdb = None
        self._listener.close()
        self._folder.cleanup()

    def fileno(self) -> int:
        """Return the descriptor that is readable if gdb wants something."""
        return self._listener.fileno() if self._gdb is None else self._gdb.fileno()

    def serve(self) -> None:
        """Take in what gdb wants, and do it."""
        if self._gdb is None:
            line, _ = self._listener.accept()
            self._gdb = GdbSide(line)
            with contextlib.suppress(OSError):
                self.path.unlink()
            return
        packets = self._gdb.receive(0)
        if packets is None:
            self._disconnected()
            return
        for payload in packets:
            if self._gdb is not None:
                self._take(self._gdb, payload)

    def _disconnected(self) -> None:
        """Let gdb come back: ``target remote`` may be typed again."""
        assert self._gdb is not None
        self._gdb.close()
        self._gdb = None
        for point in list(self._points.values()):
            self._guest.stub.request(b"z" + point[1:])
        self._points.clear()
        with contextlib.suppress(OSError):
            self._listener.close()
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.path))
            self._listener.listen(1)

    # -- packets --------------------------------------------------------------------------------

    def _take(self, gdb: GdbSide, payload: bytes) -> None:
        stub = self._guest.stub
        if payload == INTERRUPT:
            # The guest is stopped already.
            return
        if payload == b"QStartNoAckMode":
            gdb.end_acknowledgements()
        elif payload.startswith(b"qSupported"):
            answer = stub.request(payload)
            if b"ReverseStep+" not in answer and isinstance(self._guest, Rerun):
                answer += b";ReverseStep+;ReverseContinue+"
            gdb.answer(answer + b";QStartNoAckMode+")
        elif payload == b"?":
            # QEMU would drop every breakpoint, those of the recording included.
            gdb.answer(self._last)
        elif payload[:2] in (b"D", b"D;") or payload in (b"k", b"vKill;1"):
            gdb.answer(b"OK")
        elif payload in (b"bs", b"bc"):
            self._answer_run(gdb, lambda tell: self._back(gdb, payload == b"bc", tell))
        elif payload[:6] in (b"vCont;", b"c", b"s"):
            one = payload[:1] == b"s" or payload.startswith(b"vCont;s")
            self._answer_run(gdb, lambda tell: self._forward(gdb, one, tell))
        elif payload[:2] in _INSERTS or payload[:2] in (b"z0", b"z1", b"z2", b"z3", b"z4"):
            self._point(gdb, payload)
        elif payload.startswith(b"qRcmd,"):
            self._monitor(gdb, payload)
        else:
            gdb.answer(stub.request(payload))

    def _point(self, gdb: GdbSide, payload: bytes) -> None:
        answer = self._guest.stub.request(payload)
        if answer == b"OK" and payload[:1] == b"Z":
            self._points[payload[1:]] = payload
        else:
            self._points.pop(payload[1:], None)
        gdb.answer(answer)

    def _monitor(self, gdb: GdbSide, payload: bytes) -> None:
        stub = self._guest.stub
        stub.post(payload)
        while True:
            answer = stub.answer()
            gdb.answer(answer)
            if answer[:1] != b"O" or answer == b"OK":
                return

    # -- running --------------------------------------------------------------------------------

    def _answer_run(self, gdb: GdbSide, run: Callable[[Tell], bytes]) -> None:
        self.reason = None
        began = time.monotonic()

        shown = False

        def tell(count: int, goal: int | None) -> None:
            nonlocal shown
            # A run without a goal is one that the user lets go on.
            if goal and self.shows_progress and time.monotonic() - began > _SILENT_SECONDS:
                gdb.show(f"\rcosim: instruction {count:,} of {goal:,}")
                shown = True

        try:
            self._last = run(tell)
        except CosimError as error:
            gdb.show(f"cosim: {error}\n")
            self._last = _INTERRUPTED
        if shown:
            gdb.show(f"\r{' ' * _PROGRESS_COLUMNS}\r")
        gdb.answer(self._last)

    def _asked(self, gdb: GdbSide) -> bool:
        packets = gdb.receive(0)
        return packets is None or INTERRUPT in packets

    def _forward(self, gdb: GdbSide, one: bool, tell: Tell) -> bytes:
        if one:
            return self._shown(self._guest.step())
        aim = self.next_stop()
        stop = self._guest.run(None if aim is None else aim.place, lambda: self._asked(gdb), tell)
        if stop.why is Why.PLACE and aim is not None:
            self.land(aim)
        return self._shown(stop)

    def _shown(self, stop: Stop) -> bytes:
        match stop.why:
            case Why.END:
                return _AT_END if isinstance(self._guest, Rerun) else stop.reply.raw
            case Why.ASKED:
                return _INTERRUPTED
            case Why.PLACE:
                return _TRAP
            case Why.STUB:
                return stop.reply.raw

    def _back(self, gdb: GdbSide, to_point: bool, tell: Tell) -> bytes:
        guest = self._guest
        if not isinstance(guest, Rerun):
            gdb.show("cosim: this guest is not recorded, so there is no way back\n")
            return _AT_BEGIN
        aim, self.aim = self.aim, None
        place: Place | None
        came = _TRAP
        if to_point:
            now, was_asked = guest.now().count, False

            def asked() -> bool:
                nonlocal was_asked
                was_asked = was_asked or self._asked(gdb)
                return was_asked

            points = list(self._points.values())
            count = guest.hits(points, now, asked, tell) if points else None
            if was_asked:
                return _INTERRUPTED
            if count is not None:
                place = Place(count, None)
            elif now > guest.begin.count:
                place, came = guest.begin, _AT_BEGIN
            else:
                return _AT_BEGIN
        else:
            place = self.previous() if aim is None else aim.place
        if place is None:
            return _AT_BEGIN
        stop = guest.back(place, lambda: self._asked(gdb), tell)
        if stop.why is Why.ASKED:
            return _INTERRUPTED
        for point in self._points.values():
            guest.stub.request(point)
        if aim is not None:
            self.land(aim)
        return came

    def land(self, aim: Aim) -> None:
        """Note that the guest has come to ``aim``."""
        self.reason = aim.reason
        if aim.event is not None and isinstance(self._guest, Rerun):
            self.on_event(aim.event, self._guest.now())
