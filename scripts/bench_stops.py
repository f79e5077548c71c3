#!/usr/bin/env python3
"""How fast stops are handled: our session against a bare loop, and against gdb alone.

On one recording of one guest, over one region, in one run:
  (a) bare     a loop on the remote protocol that does nothing at a stop but step over it and
               resume, with the breakpoints and watchpoints that the session had at that stop;
  (b) session  ours: gdb attached over MI, interception, all models, translations compared, with
               the plugin's stream of the same recording (--backend gdb+plugin);
  (b') alone   the same through gdb alone (--backend gdb);
  (c) gdb      the points of the region's start as gdb's own break- and watchpoints, resumed over
               MI, for as many stops as fit into --gdb-seconds.
Prints stops per second of each, the median over some rounds of (b)/(a), which is what interception
costs, and where each stop's time goes: what is sent and received, how long QEMU is waited for, how
long QEMU waits for us between an answer and the next request, and the CPU time of the thread that
handles stops.  These are counted in separate runs, because counting takes time, up to the guest's
end.  The time of (a), (b) and (b') is also split, as the stub's line shows it: from the region's
begin to its first stop, from there to its last stop, and from there to the guest's end.  Each part
is the median over the rounds.

What is compared: (a) and (b) re-execute the same recording over the same region, stop at the same
instructions with the same points, and step each of them once.  Not the same: (b) also pays for gdb
at the region's ends, for the models, and for its first look at each instruction.  A longer region
(--ops) shows what a stop costs beyond that.

Example: .venv/bin/python scripts/bench_stops.py --guest micro --ops 16000 --json
"""

from __future__ import annotations

import argparse
import itertools
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from cosim.capture import marks
from cosim.capture.gdb.interception import Interception
from cosim.capture.gdb.interposer import Interposer
from cosim.capture.gdb.stopped_guest import HartState
from cosim.capture.plugin.limits import FILTER_SLOTS
from cosim.debugger.mi import GdbMi
from cosim.debugger.rsp import StopReply, Stub
from cosim.errors import GdbError
from cosim.machine import tools
from cosim.machine.configuration import Timing
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan, resolve
from cosim.run.run_spec import RunSpec
from cosim.session import gdb_session
from cosim.session.backends.both import Both
from cosim.session.backends.gdb import Gdb
from cosim.session.both_sources import Heard
from cosim.session.execution import execute, load_models
from cosim.session.gdb_session import guest_layout
from cosim.session.plugin_session import source
from cosim.session.recording import record

WORKLOADS = {
    "linux": "cosim-mark begin; busybox true; busybox true; cosim-mark end",
    "micro": "scenario=lsp-bench pages=64 ops={ops} share=50",
}
_TRAPPED = 5
"""The signal of a stop at a point."""


class Split(NamedTuple):
    """Where the seconds of a region went."""

    start: float
    """Up to its first stop."""
    stops: float
    """From there to its last stop."""
    end: float
    """From there to the guest's end."""


class TimedStub(Stub):
    """Notes when the guest has stopped."""

    last: TimedStub | None = None
    """The one made last."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(line)
        TimedStub.last = self
        self.restart()

    def restart(self) -> None:
        """Note from here on."""
        self._began = time.monotonic()
        self._first = self._last = self._ended = self._began

    @property
    def split(self) -> Split:
        """Where the time went since :meth:`restart`."""
        return Split(self._first - self._began, self._last - self._first, self._ended - self._last)

    def stop(self, timeout: float) -> StopReply | None:
        """Wait as :meth:`Stub.stop` does."""
        reply = super().stop(timeout)
        if reply is not None:
            before, self._ended = self._ended, time.monotonic()
            if reply.signal == _TRAPPED:
                self._last = self._ended
                if before == self._began:
                    self._first = self._last
        return reply


class CountedStub(TimedStub):
    """Also counts what passes, up to the guest's end."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__(Line(line))  # type: ignore[arg-type]

    def restart(self) -> None:
        """Note and count from here on."""
        super().restart()
        assert Line.last is not None
        Line.last.restart()

    def stop(self, timeout: float) -> StopReply | None:
        """Wait as :meth:`Stub.stop` does."""
        reply = super().stop(timeout)
        assert Line.last is not None
        Line.last.over |= reply is not None and reply.ended
        return reply


@dataclass
class Rate:
    """Stops handled in some seconds of real time."""

    stops: int
    seconds: float
    split: Split | None = None

    @property
    def per_second(self) -> float:
        return self.stops / self.seconds

    def to_json(self) -> dict[str, float]:
        return {
            "stops": self.stops,
            "seconds": round(self.seconds, 3),
            "stops_per_second": round(self.per_second, 1),
        }


class Line:
    """QEMU's debug line, with a count of what passes."""

    last: Line | None = None
    """The one made last."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        Line.last = self
        self.setblocking, self.setsockopt = line.setblocking, line.setsockopt
        self.fileno, self.close = line.fileno, line.close
        self.restart()

    def restart(self) -> None:
        """Count from here on."""
        self.over = False
        self.sent = self.received = self.bytes_sent = self.bytes_received = 0
        self.round_trips, self._asked = 0, False
        self.waited = self.held_up = self.cpu = 0.0
        self._answered = 0.0
        self._counted: tuple[int, float] | None = None

    def send(self, data: bytes, flags: int = 0) -> int:
        if self.over:
            return self._line.send(data, flags)
        self._count_cpu()
        if not self._asked and self._answered:
            self.held_up += time.monotonic() - self._answered
        done = self._line.send(data, flags)
        self.sent += data[:done].count(b"$")
        self.bytes_sent += done
        self._asked = True
        return done

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.over:
            return self._line.recv(size, flags)
        self._count_cpu()
        started = time.monotonic()
        try:
            data = self._line.recv(size, flags)
        finally:
            self._answered = time.monotonic()
            self.waited += self._answered - started
        self.received += data.count(b"$")
        self.bytes_received += len(data)
        self.round_trips += self._asked
        self._asked = False
        return data

    def _count_cpu(self) -> None:
        thread, now = threading.get_ident(), time.thread_time()
        if self._counted is not None and self._counted[0] == thread:
            self.cpu += now - self._counted[1]
        self._counted = thread, now

    def per_stop(self, stops: int) -> dict[str, float]:
        """Return the counts of one stop of ``stops``."""
        return {
            "round_trips": round(self.round_trips / stops, 2),
            "packets_sent": round(self.sent / stops, 2),
            "packets_received": round(self.received / stops, 2),
            "bytes_sent": round(self.bytes_sent / stops),
            "bytes_received": round(self.bytes_received / stops),
            "waiting_us": round(1e6 * self.waited / stops),
            "between_us": round(1e6 * self.held_up / stops),
            "cpu_us": round(1e6 * self.cpu / stops),
        }


def counted(run: Callable[[], Rate]) -> dict[str, float]:
    """Return what one stop of ``run`` costs."""
    with patch.dict(globals(), {"connect": CountedStub}):
        rate = run()
    assert Line.last is not None
    return Line.last.per_stop(rate.stops)


connect = TimedStub
"""Makes the client of a stub; :func:`counted` takes another."""


@contextmanager
def at_region(resolved: Plan, log: Path, folder: Path) -> Iterator[tuple[TimedStub, Interception]]:
    """Stop the re-execution where the region begins, with a session's points inserted."""
    with Machine(
        resolved.qemu.path,
        resolved.machine,
        folder=folder,
        timing=Timing("replay", log),
        stub=True,
        hold=True,
    ) as machine:
        stub = connect(machine.stub)
        stub.start()
        interception = Interception(
            stub,
            guest_layout(resolved, machine),
            lambda batch: None,
        )
        while True:
            stub.resume(b"vCont;c")
            stop = stub.stop(120)
            if stop is None or stop.signal != 5:
                sys.exit("bench_stops: the region was not reached")
            if marks.label(interception.state().general) == resolved.begin.label:
                break
            stub.resume(b"vCont;s")
            stub.stop(20)
        interception.begin()
        stub.restart()
        yield stub, interception


Points = tuple[frozenset[int], frozenset[int]]
"""Addresses of breakpoints and of page watchpoints."""


def bare(resolved: Plan, log: Path, folder: Path, wanted: dict[int, Points]) -> Rate:
    """(a); ``wanted`` are the points from a number of stops on."""
    with at_region(resolved, log, folder) as (stub, interception):
        breaks, watches = interception.points()
        stops, started = 0, time.monotonic()
        while True:
            if stops in wanted:
                more_breaks, more_watches = wanted[stops]
                stub.defer(*(b"z0,%x,4" % at for at in breaks - more_breaks))
                stub.defer(*(b"Z0,%x,4" % at for at in more_breaks - breaks))
                stub.defer(*(b"z2,%x,1000" % at for at in watches - more_watches))
                stub.defer(*(b"Z2,%x,1000" % at for at in more_watches - watches))
                breaks, watches = more_breaks, more_watches
            stub.resume(b"vCont;c" if stops else b"vCont;s")
            stop = stub.stop(120)
            if stop is None or stop.signal != 5:
                return Rate(stops, time.monotonic() - started, stub.split)
            stops += 1
            if stops == 1 or stop.watch is None:
                if stops > 1:
                    stub.resume(b"vCont;s")
                    stub.stop(20)
                continue
            stub.defer(b"z2,%x,1000" % stop.watch)
            stub.resume(b"vCont;s")
            stub.stop(20)
            stub.defer(b"Z2,%x,1000" % stop.watch)


def watched(resolved: Plan, log: Path, folder: Path) -> tuple[int, dict[int, Points]]:
    """A session not timed: its stops before the region, its points from each change of them on."""
    wanted: dict[int, Points] = {}
    execute = Interception.execute
    last: list[Points] = []
    before = 0

    def noted(self: Interception, state: HartState) -> bool:
        nonlocal before
        done = execute(self, state)
        if self.active:
            points = self.points()
            if [points] != last:
                wanted[self.stops - before] = points
                last[:] = [points]
        else:
            before = self.stops
        return done

    with patch.object(Interception, "execute", noted):
        ours(resolved, log, folder, 0)
    return before, wanted


def ours(resolved: Plan, log: Path, folder: Path, before: int, heard: Heard | None = None) -> Rate:
    """(b) if ``heard`` is given, else (b'); ``before`` of the session's stops do not count."""
    backend = Gdb(recording=log) if heard is None else Both(recording=log, heard=heard)
    again = replace(resolved, backend=backend)
    begin = Interception.begin

    def begin_and_restart(self: Interception) -> None:
        begin(self)
        assert TimedStub.last is not None
        TimedStub.last.restart()

    with (
        patch.object(Interception, "begin", begin_and_restart),
        patch.object(gdb_session, "Stub", connect),
    ):
        outcome = execute(again, folder, load_models(again))
    if outcome.document is None or outcome.error is not None:
        sys.exit(f"bench_stops: the session failed: {outcome.error}")
    region = outcome.document["region"]
    assert TimedStub.last is not None
    return Rate(region["stops"] - before, region["seconds"], TimedStub.last.split)


def middle_split(rates: list[Rate]) -> dict[str, float]:
    """Return the median of each part of the split, in milliseconds."""
    splits = [rate.split for rate in rates if rate.split is not None]
    parts = zip(Split._fields, zip(*splits, strict=True), strict=True)
    return {name: round(1000 * median(values), 1) for name, values in parts}


def gdb_alone(resolved: Plan, log: Path, folder: Path, seconds: float) -> Rate:
    """(c)."""
    with at_region(resolved, log, folder) as (stub, interception):
        breaks, watches = interception.points()
        interception.end(alive=True)
        with_gdb = Interposer(stub, interception, folder / "gdb.sock")
        try:
            with GdbMi(tools.gdb().path) as gdb:
                gdb.connect(with_gdb.path)
                for address in sorted(breaks):
                    gdb.command(f"-break-insert *{address:#x}")
                gdb.execute("set can-use-hw-watchpoints 100000")
                for address in sorted(watches):
                    gdb.execute(f"watch *(char(*)[4096]){address:#x}")
                stops, started = 0, time.monotonic()
                while time.monotonic() - started < seconds:
                    gdb.resume()
                    stop = gdb.wait_stop(seconds)
                    if stop is None or stop.ended:
                        break
                    stops += 1
                elapsed = time.monotonic() - started
                # With so many watchpoints gdb may still be busy: it is not asked to say goodbye.
                return Rate(max(stops, 1), elapsed)
        except GdbError as error:
            sys.exit(f"bench_stops: gdb alone: {error}")
        finally:
            with_gdb.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--guest", choices=list(WORKLOADS), default="linux")
    parser.add_argument("--ops", type=int, default=4000, help="page operations of micro (4000)")
    parser.add_argument("--rounds", type=int, default=5, help="of (b) and (a) in turns")
    parser.add_argument("--gdb-seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spec = RunSpec(
        name="bench",
        backend=Gdb(),
        guest=options.guest,
        workload=WORKLOADS[options.guest].format(ops=options.ops),
        region_from="mark:begin",
        region_to="power-off",
    )
    resolved = resolve(spec)
    with tempfile.TemporaryDirectory(prefix="bench-stops-") as scratch:
        log = Path(scratch) / "record.bin"
        plugin = source(resolved, accesses=True, slots=FILTER_SLOTS)
        with plugin:
            heard = Heard(resolved, plugin, Path(scratch))
            limit = time.monotonic() + 120
            record(resolved, log, Path(scratch), limit, lambda *_: None, beside=heard)
        folders = iter(Path(scratch) / str(number) for number in itertools.count())

        def fresh() -> Path:
            folder = next(folders)
            folder.mkdir()
            return folder

        # In turns, so that what else the machine does falls on both alike.
        before, wanted = watched(resolved, log, fresh())
        pairs: list[tuple[Rate, Rate]] = []
        for _ in range(options.rounds):
            session_rate = ours(resolved, log, fresh(), before, heard)
            pairs.append((bare(resolved, log, fresh(), wanted), session_rate))
        without = ours(resolved, log, fresh(), before)
        per_stop = {
            "bare": counted(lambda: bare(resolved, log, fresh(), wanted)),
            "session": counted(lambda: ours(resolved, log, fresh(), before, heard)),
            "alone": counted(lambda: ours(resolved, log, fresh(), before)),
        }
        alone = gdb_alone(resolved, log, fresh(), options.gdb_seconds)
    splits = {
        "bare": middle_split([rate for rate, _ in pairs]),
        "session": middle_split([rate for _, rate in pairs]),
        "alone": middle_split([without]),
    }
    pairs.sort(key=lambda pair: pair[1].per_second / pair[0].per_second)
    middle, session_middle = pairs[len(pairs) // 2]
    figures = {
        "bare": middle.to_json(),
        "session": session_middle.to_json(),
        "alone": without.to_json(),
        "gdb": alone.to_json(),
    }
    ratios: dict[str, object] = {
        "session_to_bare": round(session_middle.per_second / middle.per_second, 3),
        "session_to_bare_all": [round(b.per_second / a.per_second, 3) for a, b in pairs],
        "alone_to_bare": round(without.per_second / middle.per_second, 3),
        "gdb_to_bare": round(alone.per_second / middle.per_second, 4),
    }
    if options.json:
        shown = {
            "guest": options.guest,
            "ratios": ratios,
            **figures,
            "split_ms": splits,
            "per_stop": per_stop,
        }
        print(json.dumps(shown, indent=2))
        return
    print(f"guest {options.guest}, one recording, from mark:begin to power-off")
    for name, figure in figures.items():
        print(
            f"  {name:8} {figure['stops']:7,.0f} stops {figure['seconds']:8.2f} s"
            f" {figure['stops_per_second']:9.1f} stops/s"
        )
    print(
        f"  session/bare {ratios['session_to_bare']} (median of {ratios['session_to_bare_all']})"
        f"   alone/bare {ratios['alone_to_bare']}   gdb/bare {ratios['gdb_to_bare']}"
    )
    print("  ms:      " + "".join(f"{name:>18}" for name in Split._fields))
    for name, parts in splits.items():
        print(f"  {name:9}" + "".join(f"{value:>18,.1f}" for value in parts.values()))
    print("  one stop:" + "".join(f"{name.replace('_', ' '):>18}" for name in per_stop["bare"]))
    for name, row in per_stop.items():
        print(f"  {name:9}" + "".join(f"{value:>18,}" for value in row.values()))


if __name__ == "__main__":
    main()
