#!/usr/bin/env python3
"""How fast stops are handled: our session against a bare loop, and against gdb alone.

On one recording of one guest, over one region, in one run:
  (a) bare     a loop on the remote protocol that holds the breakpoints and watchpoints of a
               session and does nothing at a stop but step over it and resume;
  (b) session  ours: gdb attached over MI, interception, all models, translations compared;
  (c) gdb      the same points as gdb's own break- and watchpoints, resumed over MI, for as many
               stops as fit into --gdb-seconds.
Prints stops per second of each; (b)/(a) is what interception costs.  The points of (a) and (c)
are those of the region's start; a session also follows the tables that are made later.

Example: .venv/bin/python scripts/bench_stops.py --guest micro --json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cosim import modelling, plan, session, tools
from cosim.capture import marks
from cosim.capture.mi import Interception
from cosim.errors import GdbError
from cosim.gdb.interposer import Interposer
from cosim.gdb.mi import GdbMi
from cosim.gdb.rsp import Stub
from cosim.machine import RAM_BASE, Machine, Timing
from cosim.plan import Plan
from cosim.recording import record
from cosim.runspec import RunSpec
from cosim.session import Session

WORKLOADS = {
    "linux": "cosim-mark begin; true; true; cosim-mark end",
    "micro": "scenario=lsp-bench pages=64 ops=1000 share=50",
}
_PC = 32


@dataclass
class Rate:
    """Stops handled in some seconds of real time."""

    stops: int
    seconds: float

    def to_json(self) -> dict[str, float]:
        return {
            "stops": self.stops,
            "seconds": round(self.seconds, 3),
            "stops_per_second": round(self.stops / self.seconds, 1),
        }


@contextmanager
def at_region(resolved: Plan, log: Path, folder: Path) -> Iterator[tuple[Stub, Interception]]:
    """The replay stopped where the region begins, with a session's points inserted."""
    with Machine(
        resolved.qemu.path,
        resolved.machine,
        folder=folder,
        timing=Timing("replay", log),
        stub=True,
        hold=True,
    ) as machine:
        stub = Stub(machine.stub)
        stub.start()
        interception = Interception(
            stub,
            machine.ram_words(),
            RAM_BASE,
            extents=machine.ram_extents,
            firmware=resolved.firmware_ranges,
            kernel=resolved.kernel_ranges,
            sink=lambda batch: None,
            mark_at=resolved.mark_at,
        )
        while True:
            stub.resume(b"vCont;c")
            stop = stub.stop(120)
            if stop is None or stop.signal != 5:
                sys.exit("bench_stops: the region was not reached")
            if marks.label(interception.registers()) == resolved.begin.label:
                break
            stub.resume(b"vCont;s")
            stub.stop(20)
        interception.begin()
        yield stub, interception


def bare(resolved: Plan, log: Path, folder: Path) -> Rate:
    """(a)."""
    with at_region(resolved, log, folder) as (stub, _):
        stops, started = 0, time.monotonic()
        while True:
            stub.resume(b"vCont;c" if stops else b"vCont;s")
            stop = stub.stop(120)
            if stop is None or stop.signal != 5:
                return Rate(stops, time.monotonic() - started)
            stops += 1
            if stop.watch is None:
                stub.resume(b"vCont;s")
                stub.stop(20)
            else:
                stub.post(b"z2,%x,1000" % stop.watch, b"vCont;s")
                stub.answer()
                stub.stop(20)
                stub.command(b"Z2,%x,1000" % stop.watch)


def ours(resolved: Plan, log: Path, folder: Path) -> Rate:
    """(b)."""
    modelling.compile_models(session.origin(resolved), resolved.models)
    pipeline = modelling.make_pipeline(session.origin(resolved), resolved.models)
    outcome = Session(resolved, folder, pipeline, recording=log).run()
    if outcome.document is None or outcome.error is not None:
        sys.exit(f"bench_stops: the session failed: {outcome.error}")
    region = outcome.document["region"]
    return Rate(region["stops"], region["seconds"])


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
    parser.add_argument("--gdb-seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spec = RunSpec(
        name="bench",
        guest=options.guest,
        workload=WORKLOADS[options.guest],
        region_from="mark:begin",
        region_to="power-off",
    )
    resolved = plan.resolve(spec)
    with tempfile.TemporaryDirectory(prefix="bench-stops-") as scratch:
        log = Path(scratch) / "record.bin"
        record(resolved, log, Path(scratch), time.monotonic() + 120, lambda *_: None)
        rates = {}
        for name, measure in (("bare", bare), ("session", ours)):
            folder = Path(scratch) / name
            folder.mkdir()
            rates[name] = measure(resolved, log, folder)
        folder = Path(scratch) / "gdb"
        folder.mkdir()
        rates["gdb"] = gdb_alone(resolved, log, folder, options.gdb_seconds)
    figures = {name: rate.to_json() for name, rate in rates.items()}
    base = figures["bare"]["stops_per_second"]
    ratios = {
        "session_to_bare": round(figures["session"]["stops_per_second"] / base, 3),
        "gdb_to_bare": round(figures["gdb"]["stops_per_second"] / base, 3),
    }
    if options.json:
        print(json.dumps({"guest": options.guest, "ratios": ratios, **figures}, indent=2))
        return
    print(f"guest {options.guest}, one recording, from mark:begin to power-off")
    for name, figure in figures.items():
        print(
            f"  {name:8} {figure['stops']:7,.0f} stops {figure['seconds']:8.2f} s"
            f" {figure['stops_per_second']:9.1f} stops/s"
        )
    print(f"  session/bare {ratios['session_to_bare']:.2f}   gdb/bare {ratios['gdb_to_bare']:.3f}")


if __name__ == "__main__":
    main()
