"""A live co-simulation through gdb: record the guest, replay it under gdb, feed the models.

Scripted sessions record the guest first at full speed and then work on the replay, where it can
be stopped anywhere without changing it; ``live`` sessions work on the guest as it runs.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.capture.decode import CBO_BLOCK
from cosim.capture.gdb.interception import Interception
from cosim.capture.gdb.interposer import Interposer
from cosim.capture.plugin.source import FILTER_SLOTS
from cosim.debugger.mi import GdbMi
from cosim.debugger.rsp import Stub
from cosim.errors import (
    CosimError,
    GdbError,
    GuestError,
    MachineError,
    RemoteError,
    StorageError,
)
from cosim.machine import interrupts, tools
from cosim.machine.console import Console
from cosim.machine.qemu import RAM_BASE, Machine, Timing
from cosim.machine.tools import Tool
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending, Origin, ResultDocument
from cosim.output import note
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session.recording import Recorded, panic_line, record
from hypervisor_model.events import EventBatch
from hypervisor_model.policies import Accesses, MachineModel, Stream

_TICK = 0.25
_CONSOLE_TICK = 0.02
"""The guest runs on between a line on its console and the look at it."""


@dataclass(frozen=True)
class Progress:
    """Where a session is, for the live view.

    ``phase`` is ``recording``, ``to the region`` or ``in the region``; ``place`` is where the
    guest was at the last stop.
    """

    phase: str
    seconds: float
    events: int
    place: str
    exits: dict[str, int]


View = Callable[[Progress], None]
Keep = Callable[[EventBatch], None]
"""Takes every batch besides the models: a trace writer."""


@dataclass(frozen=True)
class Outcome:
    """How a session ended: what was measured, and what cut it short, if anything did."""

    document: ResultDocument | None
    error: CosimError | KeyboardInterrupt | None = None
    ending: Ending | None = None


STOPPED = "stopped at the first illegal translation (--stop-on-divergence)"
"""Why a session that was to stop at a divergence is not complete."""


def ended_by(error: CosimError | KeyboardInterrupt | None) -> str | None:
    """Why a session that ``error`` cut short is not complete."""
    return None if error is None else str(error) or "interrupted"


def origin(plan: Plan, *, live: bool = False) -> Origin:
    """What is known of a session before it starts; ``live``: it is not recorded."""
    stepping = plan.stepping
    if plan.spec.backend == "plugin":
        if plan.spec.accesses is False:
            stream = Stream(accesses="none")
        else:
            stream = Stream(filter=plan.spec.filter or FILTER_SLOTS)
        backend = "plugin"
    else:
        backend = "mi"
        accesses: Accesses = "all" if stepping.all else "partial" if stepping.after else "none"
        stream = Stream(accesses=accesses, page_faults=stepping.all)
    return Origin(
        guest=plan.describe(live=live),
        backend=backend,
        region={"from": plan.begin.text, "to": plan.end.text},
        stream=stream,
        machine=machine_model(plan),
    )


def machine_model(plan: Plan) -> MachineModel:
    """The machine that the plan's guest runs on, with the paging features that QEMU gives it."""
    cpu = plan.cpu_properties
    fields = {
        "ram_base": RAM_BASE,
        "ram_size": plan.machine.memory,
        "harts": plan.machine.harts,
        # QEMU's MMU sets A and D, with Svadu or without, unless the CPU has Svade.  One that has
        # both leaves them to software until menvcfg.ADUE is set, and the firmware leaves that 0.
        "svadu": not cpu.get("svade", False),
        **{name: bool(cpu.get(name, False)) for name in ("svpbmt", "svnapot", "svvptc")},
    }
    return MachineModel.from_json({**fields, **plan.spec.machine})


def cbo_block(plan: Plan) -> int:
    """Bytes that ``cbo.zero`` of the plan's CPU clears."""
    return int(plan.cpu_properties.get("cboz_blocksize", CBO_BLOCK))


class Session:
    """One session through gdb.

    :param plan: what to do.
    :param folder: an empty folder for the logs and the recording.
    :param pipeline: the models; fed from a thread of the session's.
    :param keep: takes every batch too.
    :param view: told about progress a few times a second.
    :param live: work on the guest as it runs, without recording it.
    :param recording: replay this recording of the plan's machine instead of making one.
    :param mi_log: file that receives gdb's MI transcript.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        pipeline: Pipeline,
        *,
        keep: Keep | None = None,
        view: View | None = None,
        live: bool = False,
        recording: Path | None = None,
        mi_log: Path | None = None,
        attach: Callable[[Console], contextlib.AbstractContextManager[None]] | None = None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._pipeline = pipeline
        self._keep = keep
        self._view = view
        self._live = live
        self._recording = recording
        self._mi_log = mi_log
        self._attach = attach or (lambda console: contextlib.nullcontext())
        self._started = time.monotonic()
        self._deadline = self._started + plan.time_limit
        if live and plan.spec.time_limit is None:
            self._deadline = math.inf
        self._events = 0
        self._began = False
        self._printed_late = False
        self._interception: Interception | None = None
        self._instructions: int | None = None
        self._first_instruction: int | None = None
        self._recorded: Recorded | None = None
        self._not_replayed: int | None = None
        self._region_started = 0.0
        self._region_seconds: float | None = None

    def run(self) -> Outcome:
        """Do all of it; never raises for what a user can do something about.

        The outcome has a document as soon as the region was reached, whatever happened then.
        """
        error: CosimError | KeyboardInterrupt | None = None
        try:
            with interrupts.deferred():
                self._run()
        except (CosimError, KeyboardInterrupt) as problem:
            error = problem
        if not self._began:
            return Outcome(None, error)
        ending = self._ending(error)
        return Outcome(self._pipeline.document(ending), error, ending)

    @property
    def labels(self) -> list[str]:
        """Labels of the marks met, by their number in MARK events."""
        return [] if self._interception is None else self._interception.labels.names

    def _run(self) -> None:
        with interrupts.allowed():
            gdb = tools.gdb()
        if self._mi_log is not None:
            # Before the recording, which would be for nothing.
            try:
                self._mi_log.open("ab").close()
            except OSError as error:
                raise StorageError(f"cannot write {self._mi_log}: {error.strerror}") from None
        if self._live:
            self._intercept(Timing("live"), gdb)
        elif self._recording is not None:
            self._intercept(self._replay(self._recording), gdb)
        else:
            with _nameless(self._folder) as log:
                limit = time.monotonic() + self._plan.time_limit / 2
                self._recorded = record(self._plan, log, self._folder, limit, self._show)
                self._intercept(self._replay(log), gdb)

    def _replay(self, log: Path) -> Timing:
        return Timing("replay", log, typed=bool(self._plan.spec.console))

    # -- interception ---------------------------------------------------------------------------

    def _intercept(self, timing: Timing, gdb_tool: Tool) -> None:
        plan = self._plan
        with Machine(
            plan.qemu.path,
            plan.machine,
            folder=self._folder,
            name="live" if self._live else "replay",
            timing=timing,
            stub=True,
            hold=True,
        ) as machine:
            interposer: Interposer | None = None
            try:
                interposer = self._interpose(machine)
                with GdbMi(gdb_tool.path, transcript=self._mi_log) as gdb:
                    if plan.image.kind == "elf":
                        with interrupts.allowed():
                            gdb.load_symbols(plan.machine.kernel)
                    gdb.connect(interposer.path)
                    if self._live:
                        note(f"cosim: {machine.ram_note}")
                    with self._attach(machine.console):
                        self._drive(machine, interposer, gdb)
                gdb.check_log()
                machine.console.check_log()
            except (GdbError, RemoteError) as error:
                if interposer is not None:
                    interposer.close()
                raise self._cause(error, machine, interposer) from error
            finally:
                if interposer is not None:
                    interposer.close()
                    self._finish(machine, interposer)

    def _interpose(self, machine: Machine) -> Interposer:
        plan = self._plan
        stub = Stub(machine.stub)
        stub.start()
        self._interception = Interception(
            stub,
            machine.ram_words(),
            RAM_BASE,
            extents=machine.ram_extents,
            firmware=plan.firmware_ranges,
            kernel=plan.kernel_ranges,
            sink=self._take,
            mark_at=plan.mark_at,
            cbo_block=cbo_block(plan),
            stepping=plan.stepping,
            one_by_one=plan.spec.stop_on_divergence,
        )
        return Interposer(stub, self._interception, self._folder / "gdb.sock")

    def _cause(
        self, error: CosimError, machine: Machine, interposer: Interposer | None
    ) -> CosimError:
        """What is behind ``error``, which may only be what another part's end looks like."""
        if machine.died(1.0):
            return MachineError(machine.obituary(), log=str(machine.stderr_log))
        return (interposer and interposer.failure) or error

    def _finish(self, machine: Machine, interposer: Interposer) -> None:
        """Close the region, with the last audit where the guest stands between two instructions."""
        interception = self._interception
        if interception is None or not interception.active or interposer.busy:
            return
        if interposer.failure is None and machine.alive():
            interception.end(alive=False)
        else:
            with contextlib.suppress(CosimError):
                interception.flush()

    def _drive(self, machine: Machine, interposer: Interposer, gdb: GdbMi) -> None:
        plan = self._plan
        if plan.begin.form != "boot" and not self._reach(plan.begin, machine, interposer, gdb):
            raise GuestError(
                f"{self._end_of_guest(machine)} before the region began "
                f"(--from {plan.begin.text}){self._too_late()}{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        with interposer.stopped() as interception:
            interception.begin()
        self._began = True
        self._first_instruction = self._icount(machine)
        self._instructions = None
        self._region_started = time.monotonic()
        try:
            reached = self._reach(plan.end, machine, interposer, gdb)
        finally:
            self._region_seconds = round(time.monotonic() - self._region_started, 3)
        if not reached and plan.end.form != "power-off":
            raise GuestError(
                f"{self._end_of_guest(machine)} before the region's end (--to {plan.end.text})"
                f"{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        if not reached and self._recorded is not None and self._recorded.late:
            raise GuestError(
                f"{self._end_of_guest(machine)} before the guest powered off"
                f"{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        if not reached and self._recorded is not None:
            self._not_replayed = _less(self._recorded.instructions, self._instructions)
        panic = self._panic(machine)
        if not reached and panic:
            raise GuestError(f"the guest panicked: {panic}", log=str(machine.console_log))

    def _reach(self, edge: Edge, machine: Machine, interposer: Interposer, gdb: GdbMi) -> bool:
        """Let the guest run up to ``edge``; False when it ended before."""
        interception = self._interception
        assert interception is not None
        interception.stop_at_marks = {edge.label} if edge.form == "mark" else set()
        breakpoint_number = gdb.break_insert(edge.address) if edge.form == "address" else None
        gdb.resume()
        asked = False
        while True:
            stop = gdb.wait_stop(_CONSOLE_TICK if edge.form == "console" else _TICK)
            interrupts.check()
            self._show("in the region" if self._began else "to the region", self._place())
            if interposer.failure is not None:
                raise interposer.failure
            if stop is not None:
                break
            if edge.form == "console" and not asked and machine.console.seen(edge.pattern):
                gdb.interrupt()
                asked = True
            if time.monotonic() > self._deadline:
                self._out_of_time(edge, machine, gdb)
        if breakpoint_number is not None and not interposer.ended:
            gdb.break_delete(breakpoint_number)
        self._instructions = self._icount(machine)
        if interposer.gone and machine.failed():
            raise MachineError(machine.obituary(), log=str(machine.stderr_log))
        if interception.halted or not interposer.ended:
            return True
        if edge.form != "console":
            return False
        # What the guest printed last may still be on its way.
        self._printed_late = asked or machine.console.seen(edge.pattern, 1.0)
        # A region can end with its guest, but not begin.
        return self._began and self._printed_late

    def _too_late(self) -> str:
        if not self._printed_late:
            return ""
        return "; it was printed, too shortly before: use a mark, a symbol or an address"

    def _out_of_time(self, edge: Edge, machine: Machine, gdb: GdbMi) -> None:
        gdb.interrupt()
        place = "an unknown place"
        if gdb.wait_stop(5) is not None:
            self._instructions = self._icount(machine)
            place = self._plan.symbols.describe(gdb.registers(["pc"])["pc"])
        edge_name = "--to" if self._began else "--from"
        raise GuestError(
            f"{self._plan.time_limit:g} s passed and {edge_name} {edge.text} was not reached; "
            f"the guest is at {place}{self._last_line(machine)}; "
            "raise --time-limit or choose another edge",
            log=str(machine.console_log),
        )

    def _end_of_guest(self, machine: Machine) -> str:
        panic = self._panic(machine)
        if panic:
            return f"the guest panicked ({panic})"
        recorded = self._recorded
        if recorded is not None and recorded.late:
            limit = self._plan.time_limit
            return f"the recording was cut after {limit / 2:g} s, half of --time-limit {limit:g},"
        # A replay does not say it reliably: it ends as QEMU's recording was ended.
        reason = recorded.reason if recorded is not None else machine.end_reason()
        if reason == "guest-shutdown":
            return "the guest powered off"
        if reason == "guest-reset":
            return "the guest reset itself"
        return "the guest ended" if self._live else "the recorded run ended"

    def _panic(self, machine: Machine) -> str | None:
        return self._recorded.panic if self._recorded is not None else panic_line(machine)

    def _last_line(self, machine: Machine) -> str:
        line = machine.console.last_line()
        if self._panic(machine):
            return ""
        return f"; its last line was {line!r}" if line else "; it printed nothing"

    def _icount(self, machine: Machine) -> int | None:
        return None if self._live or not machine.alive() else machine.replay_icount()

    # -- models ---------------------------------------------------------------------------------

    def _take(self, batch: EventBatch) -> None:
        self._events += len(batch)
        if self._keep is not None:
            self._keep(batch)
        self._pipeline.feed(batch)
        if self._plan.spec.stop_on_divergence and self._pipeline.illegal:
            assert self._interception is not None
            self._interception.halted = True

    def _ending(self, error: CosimError | KeyboardInterrupt | None) -> Ending:
        interception = self._interception
        assert interception is not None
        instructions = _less(self._instructions, self._first_instruction)
        stepped: dict[str, Any] = {"instructions": interception.stepped, "share": None}
        if instructions:
            stepped["share"] = interception.stepped / instructions
        return Ending(
            complete=error is None and not interception.halted,
            reason=STOPPED if interception.halted else ended_by(error),
            region={
                "instructions": instructions,
                "not_replayed": self._not_replayed,
                "stops": interception.stops,
                "seconds": self._region_seconds,
            },
            stepped=stepped,
            audit=interception.audit.to_json(),
        )

    def _place(self) -> str:
        assert self._interception is not None
        if not self._interception.stops:
            return ""
        return self._plan.symbols.describe(self._interception.pc)

    def _show(self, phase: str, place: str) -> None:
        if self._view is not None:
            seconds = time.monotonic() - self._started
            self._view(Progress(phase, seconds, self._events, place, self._pipeline.exits()))


def _less(count: int | None, other: int | None) -> int | None:
    return None if count is None or other is None else count - other


@contextmanager
def _nameless(folder: Path) -> Iterator[Path]:
    """A file on the disk of ``folder`` that is gone with us, whatever ends us."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from None
    with file:
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def interactive() -> bool:
    """Whether a user can type into the guest: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()
