"""A session through gdb: record the guest, re-execute it under gdb, feed the models.

The guest is recorded first at full speed.  gdb then works on the re-execution of the recording,
which can be stopped anywhere without changing what the guest does.  A ``live`` session works on the
guest as it runs.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from cosim.capture.gdb.audit import nothing
from cosim.capture.gdb.foretold import Foretold
from cosim.capture.gdb.interception import Interception
from cosim.capture.gdb.interposer import Interposer
from cosim.capture.gdb.layout import GuestLayout, Loop
from cosim.capture.gdb.stepping import Stepping
from cosim.capture.processes import Process
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
from cosim.machine.configuration import RAM_BASE, Timing
from cosim.machine.dma import DmaWrites
from cosim.machine.qemu import Machine
from cosim.machine.tools import Tool
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session.feeder import Feeder
from cosim.session.forecast import Forecast, known_warning, warning
from cosim.session.past_times import PastTimes
from cosim.session.protocol import STOPPED, Outcome, Progress, Watchers, ended_by
from cosim.session.recording import (
    Recorded,
    last_words,
    nameless_file,
    needs,
    panic_line,
    record,
)
from cosim.session.standstill import Standstill
from cosim.session.trap_loop import TrapLoop, TrapLoops, again
from hypervisor_model.events import EventBatch

_TICK = 0.25
_CONSOLE_TICK = 0.02
"""The guest runs on between printing a line and our look at its console."""
_RECORDING = "recording"
REGION = "region"
"""Parts whose times are kept (:mod:`cosim.session.past_times`)."""
_OBJECTS = 50_000
"""So many new objects are made between two looks for garbage."""
RSP_LOGGER = "cosim.rsp"
"""Logs the packets to and from QEMU's stub, at level DEBUG."""


def guest_layout(plan: Plan, machine: Machine, loop: TrapLoop | None = None) -> GuestLayout:
    """Return what interception must know about the guest of ``plan`` that ``machine`` runs.

    :param loop: where the guest traps without end; None: nowhere that is known.
    """
    return GuestLayout(
        machine.ram_words(),
        RAM_BASE,
        extents=machine.ram_extents,
        mark_at=plan.mark_at,
        firmware=plan.firmware_ranges,
        kernel=plan.kernel_ranges,
        machine_mode=plan.machine_mode,
        loop=None if loop is None else Loop(loop.pc, f"{loop.mode}epc"),
        cbo_block=plan.cbo_block,
        paging=plan.paging,
        processes=plan.naming.layout,
    )


class GdbOptions(Protocol):
    """How a user wants gdb to work; the backend has them all as its options."""

    @property
    def step(self) -> int:
        """Instructions to step after every fence and table write."""

    @property
    def step_all(self) -> bool:
        """True if the whole region is to be stepped."""

    @property
    def mi_log(self) -> Path | None:
        """The file that receives gdb's MI transcript."""

    @property
    def rsp_log(self) -> Path | None:
        """The file that receives the packets to and from QEMU's stub."""

    @property
    def recording(self) -> Path | None:
        """The recording to re-execute instead of making one."""


class GdbSession:
    """One session through gdb.

    :param plan: what to do.
    :param options: how gdb does it.
    :param folder: an empty folder for the logs and the recording.
    :param pipeline: the models; fed from a thread of the session.
    :param watchers: who follows the session.
    """

    def __init__(
        self, plan: Plan, options: GdbOptions, folder: Path, pipeline: Pipeline, watchers: Watchers
    ) -> None:
        self._plan = plan
        self._options = options
        self._folder = folder
        self._pipeline = pipeline
        self._watchers = watchers
        self._time_limit = math.inf if plan.time_limit is None else plan.time_limit
        self._started = time.monotonic()
        self._deadline = self._started + self._time_limit
        self._events = 0
        self._began = False
        self._printed_late = False
        self._interception: Interception | None = None
        self._instructions: int | None = None
        self._first_instruction: int | None = None
        self._recorded: Recorded | None = None
        self._dma: DmaWrites | None = None
        self._standstill: Standstill | None = None
        self._loops: TrapLoops | None = None
        """Looks at a guest that is not recorded; if it is recorded, the recording tells."""
        self._not_replayed: int | None = None
        self._region_started = 0.0
        self._stopped_at: float | None = None
        self._forecast: Forecast | None = None
        self._past = PastTimes(plan)
        self._recording_began = self._started
        self._told = False
        """True if the user was told that gdb takes long, or need not be."""
        self._region_seconds: float | None = None
        self._feeder = Feeder(lambda batch: self._take(batch), lambda: self._feed_ahead())

    def run(self) -> Outcome:
        """Do all of it (:meth:`cosim.session.protocol.Session.run`)."""
        error: CosimError | KeyboardInterrupt | None = None
        try:
            with interrupts.deferred(), _logged(self._options.rsp_log):
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

    @property
    def processes(self) -> Mapping[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        return {} if self._interception is None else self._interception.processes

    def _run(self) -> None:
        with interrupts.allowed():
            gdb = tools.gdb()
        mi_log = self._options.mi_log
        if mi_log is not None:
            # Before the recording, which would be made for nothing.
            try:
                mi_log.open("ab").close()
            except OSError as error:
                raise StorageError(f"cannot write {mi_log}: {error.strerror}") from None
        if self._plan.live:
            self._intercept(Timing("live"), gdb)
        elif self._options.recording is not None:
            self._intercept(self._reexecution(self._options.recording), gdb)
        else:
            with nameless_file(self._folder) as log:
                limit = time.monotonic() + self._time_limit / 2
                self._recorded = self._timed_record(log, limit, frozenset())
                while self._recorded.unsplit and not self._recorded.late and not self._plan.typed:
                    # Two recordings of a guest that is typed into are two different runs.
                    split = self._recorded.split | self._recorded.unsplit
                    self._recorded = self._timed_record(log, limit, split)
                self._intercept(self._reexecution(log), gdb)

    def _timed_record(self, log: Path, limit: float, split: frozenset[int]) -> Recorded:
        """Record, and remember how long it took if nothing cut it short."""
        self._recording_began = time.monotonic()
        recorded = self._record(log, limit, split)
        if not recorded.late and recorded.loop is None and recorded.panic is None:
            self._past.keep(_RECORDING, time.monotonic() - self._recording_began)
        return recorded

    def _record(self, log: Path, limit: float, split: frozenset[int]) -> Recorded:
        note = self._watchers.note
        return record(
            *(self._plan, log, self._folder, limit, self._show, note),
            split=split,
            everywhere=self._steps,
        )

    @property
    def _steps(self) -> bool:
        """True if the guest is stepped, and so may be stopped anywhere."""
        return self._options.step_all or self._options.step > 0

    def _reexecution(self, log: Path) -> Timing:
        # QEMU calls it replay; here that word is for traces.
        split = None if self._recorded is None else self._recorded.split
        return Timing("replay", log, typed=self._plan.typed, split=split)

    # -- interception ---------------------------------------------------------------------------

    def _intercept(self, timing: Timing, gdb_tool: Tool) -> None:
        plan = self._plan
        with Machine(
            plan.qemu.path,
            plan.machine,
            folder=self._folder,
            name="live" if plan.live else "reexecution",
            timing=timing,
            stub=True,
            hold=True,
            watch_dma=True,
        ) as machine:
            self._dma = machine.dma
            interposer: Interposer | None = None
            try:
                interposer = self._interpose(machine)
                with GdbMi(gdb_tool.path, transcript=self._options.mi_log) as gdb:
                    if plan.image.elf is not None:
                        with interrupts.allowed():
                            gdb.load_symbols(plan.image.elf)
                    gdb.connect(interposer.path)
                    if plan.live:
                        self._watchers.note(f"cosim: {machine.ram_note}")
                    if not plan.live:
                        self._standstill = Standstill(machine)
                    with self._watchers.attach(machine.console):
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
                self._feeder.close()

    def _interpose(self, machine: Machine) -> Interposer:
        plan = self._plan
        loop = None if self._recorded is None else self._recorded.loop
        stub = Stub(machine.stub)
        stub.start()
        if plan.live:
            self._loops = TrapLoops(machine, stub)
        self._interception = Interception(
            stub,
            guest_layout(plan, machine, loop),
            self._take if plan.stop_on_divergence else self._feeder.put,
            stepping=Stepping(after=self._options.step, all=self._options.step_all),
            one_by_one=plan.stop_on_divergence,
            foretold=self._foretold(),
            told=self._told_sites(),
            by_device=nothing if machine.dma is None else machine.dma.covers,
        )
        return Interposer(stub, self._interception, self._folder / "gdb.sock")

    def _foretold(self) -> Foretold | None:
        """Return what the stops will bring, if that is known."""
        return None

    def _told_sites(self) -> Collection[int]:
        """Return where the guest will fence or write ``satp``, if that is known."""
        return ()

    def _cause(
        self, error: CosimError, machine: Machine, interposer: Interposer | None
    ) -> CosimError:
        """Return the cause of ``error``, which may only show that another part ended."""
        cause = machine.cause(error)
        if cause is error and interposer is not None and interposer.failure is not None:
            return interposer.failure
        return cause

    def _finish(self, machine: Machine, interposer: Interposer) -> None:
        """Close the region.  Audit a last time if the guest stands between two instructions."""
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
                f"({plan.edge(end=False)}){self._too_late()}{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        with interposer.stopped() as interception:
            interception.begin()
        self._began = True
        self._first_instruction = self._icount(machine)
        self._instructions = None
        self._region_started, self._stopped_at = time.monotonic(), None
        self._look_back()
        first, recorded = self._first_instruction, self._recorded
        if first is not None and recorded is not None and recorded.instructions is not None:
            assert self._interception is not None
            self._forecast = Forecast(recorded.instructions, first, self._interception.stops)
        try:
            with _rare_collections():
                reached = self._reach(plan.end, machine, interposer, gdb)
        finally:
            # QEMU may take a while to say where its guest has ended.
            ended = self._stopped_at or time.monotonic()
            self._region_seconds = round(ended - self._region_started, 3)
        self._check_end(machine, reached=reached)
        assert self._interception is not None
        if self._recorded is not None and not self._interception.halted:
            self._past.keep(REGION, self._region_seconds)

    def _check_end(self, machine: Machine, *, reached: bool) -> None:
        """Check that the region is whole.

        :raises GuestError: when it is not.
        """
        plan = self._plan
        if not reached and plan.end.form != "power-off":
            raise GuestError(
                f"{self._end_of_guest(machine)} before the region's end ({plan.edge(end=True)})"
                f"{self._again(machine)}{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        if not reached and self._recorded is not None and self._recorded.late:
            raise GuestError(
                f"{self._end_of_guest(machine)} before the guest powered off"
                f"{self._again(machine)}{self._last_line(machine)}",
                log=str(machine.console_log),
            )
        if not reached and self._recorded is not None:
            self._not_replayed = _less(self._recorded.instructions, self._instructions)
        panic = self._panic(machine)
        if not reached and panic:
            raise GuestError(
                f"the guest panicked: {panic}{needs(panic)}", log=str(machine.console_log)
            )

    def _reach(self, edge: Edge, machine: Machine, interposer: Interposer, gdb: GdbMi) -> bool:
        """Let the guest run up to ``edge``; return False if it ended before that."""
        interception = self._interception
        assert interception is not None
        interception.stop_at_marks = {edge.label} if edge.form == "mark" else set()
        breakpoint_number = gdb.break_insert(edge.address) if edge.form == "address" else None
        asked = self._run_to_stop(machine, interposer, gdb, edge.pattern)
        if breakpoint_number is not None and not interposer.ended:
            gdb.break_delete(breakpoint_number)
        if interception.halted or not interposer.ended:
            return True
        if edge.form != "console":
            return False
        # What the guest printed last may still be on its way.
        self._printed_late = asked or machine.console.seen(edge.pattern, 1.0)
        # A region can end with its guest, but not begin.
        return self._began and self._printed_late

    def _run_to_stop(
        self, machine: Machine, interposer: Interposer, gdb: GdbMi, pattern: str = ""
    ) -> bool:
        """Let the guest run until gdb sees it stop, or end.

        :param pattern: stop it when its console shows a line with this pattern.
        :return: True if the line was seen.
        """
        interception = self._interception
        assert interception is not None
        seen = False
        self._stopped_at = None
        gdb.resume()
        while True:
            stop = gdb.wait_stop(_CONSOLE_TICK if pattern else _TICK)
            interrupts.check()
            self._show("in the region" if self._began else "to the region", self._place())
            if interposer.failure is not None:
                raise interposer.failure
            if stop is not None:
                self._stopped_at = time.monotonic()
                break
            if pattern and not seen and machine.console.seen(pattern):
                gdb.interrupt()
                seen = True
            if time.monotonic() > self._deadline:
                self._out_of_time(machine, gdb)
            self._look_ahead(machine, interception.stops)
            live_loop = None if self._loops is None else self._loops.look()
            if live_loop is not None:
                raise self._looping(live_loop, machine)
            if self._standstill is not None:
                instruction = self._standstill.at(interception.stops)
                if instruction is not None:
                    self._lost_count(machine, gdb, instruction)
        self._instructions = self._icount(machine)
        if interception.loops:
            assert self._recorded is not None and self._recorded.loop is not None
            raise self._looping(self._recorded.loop, machine)
        if interposer.gone and machine.failed():
            raise MachineError(machine.obituary(), log=str(machine.stderr_log))
        return seen

    def _looping(self, loop: TrapLoop, machine: Machine) -> GuestError:
        text = loop.describe(self._plan, machine.ram_words())
        return GuestError(text, log=str(machine.console_log))

    def _too_late(self) -> str:
        if not self._printed_late:
            return ""
        return (
            "; the line was printed, but too shortly before the end: "
            "use a mark, a symbol or an address"
        )

    def _look_back(self) -> None:
        """Say how long the region took the last time, if that was long."""
        last = self._past.last(REGION)
        if last is None or self._recorded is None:
            return
        text = known_warning(last, self._deadline - time.monotonic(), self._plan.names)
        self._told = True
        if text is not None:
            self._watchers.note(f"cosim: {text}")

    def _look_ahead(self, machine: Machine, stops: int) -> None:
        """Say once how long the region will take, if that is long."""
        if self._forecast is None or not self._forecast.due:
            return
        instruction = self._icount(machine)
        speed = None if instruction is None else self._forecast.update(stops, instruction)
        if speed is not None and not self._told:
            self._told = True
            left = self._deadline - time.monotonic()
            self._watchers.note(f"cosim: {warning(speed, left, self._plan.names)}")

    def _lost_count(self, machine: Machine, gdb: GdbMi, instruction: int) -> None:
        """Report a re-execution that stands still."""
        place = "an unknown place"
        gdb.interrupt()
        if gdb.wait_stop(2) is not None:
            place = self._plan.symbols.describe(gdb.registers(["pc"])["pc"])
        elif self._interception is not None and self._interception.stops:
            # It stands in a step.
            place = self._plan.symbols.describe(self._interception.pc)
        # A thread may wait for the end of that step.
        machine.close()
        raise MachineError(
            f"QEMU's re-execution stands still at instruction {instruction:,}, at {place}: it has "
            "lost count of the recorded instructions; the plugin needs no re-execution "
            f"({self._plan.names.setting('backend', 'plugin')})",
            log=str(machine.stderr_log),
        )

    def _again(self, machine: Machine) -> str:
        """Return what a message adds about the trap that the guest takes again and again."""
        recorded = self._recorded
        if recorded is not None:
            return recorded.trap
        return again(self._loops, self._plan, machine.ram_words())

    def _out_of_time(self, machine: Machine, gdb: GdbMi) -> None:
        gdb.interrupt()
        place = "an unknown place"
        if gdb.wait_stop(5) is not None:
            self._instructions = self._icount(machine)
            place = self._plan.symbols.describe(gdb.registers(["pc"])["pc"])
        if self._recorded is not None and self._recorded.loop is not None:
            raise GuestError(
                f"{self._recorded.trap}; {self._time_limit:g} s passed before gdb came there, at "
                f"{place}",
                log=str(machine.console_log),
            )
        raise GuestError(
            f"{self._time_limit:g} s passed and {self._plan.edge(end=self._began)} was not "
            f"reached; the guest is at {place}{self._again(machine)}{self._last_line(machine)}; "
            f"raise {self._plan.names.option('time_limit')} or choose another edge",
            log=str(machine.console_log),
        )

    def _end_of_guest(self, machine: Machine | None = None) -> str:
        """Return how the guest ended; ``machine`` is not needed if it was recorded."""
        panic = self._panic(machine)
        if panic:
            return f"the guest panicked ({panic})"
        recorded = self._recorded
        if recorded is not None and recorded.late:
            limit = self._time_limit
            option = self._plan.names.setting("time_limit", f"{limit:g}")
            return f"the recording was cut after {limit / 2:g} s, half of {option},"
        # A re-execution does not say it reliably: it ends as QEMU's recording was ended.
        if recorded is not None:
            reason = recorded.reason
        else:
            reason = None if machine is None else machine.end_reason()
        if reason == "guest-shutdown":
            return "the guest powered off"
        if reason == "guest-reset":
            return "the guest reset itself"
        return "the guest ended" if self._plan.live else "the recorded run ended"

    def _panic(self, machine: Machine | None) -> str | None:
        if self._recorded is not None:
            return self._recorded.panic
        return None if machine is None else panic_line(machine)

    def _last_line(self, machine: Machine) -> str:
        line = machine.console.last_line()
        if self._panic(machine):
            return ""
        return f"; {last_words(line)}"

    def _icount(self, machine: Machine) -> int | None:
        return None if self._plan.live or not machine.alive() else machine.replay_icount()

    # -- models ---------------------------------------------------------------------------------

    def _take(self, batch: EventBatch) -> None:
        self._events += len(batch)
        self._watchers.keep(batch)
        self._pipeline.feed(batch)
        if self._diverged:
            assert self._interception is not None
            self._interception.halted = True

    def _feed_ahead(self) -> bool:
        """Give the models a piece that no further stop changes; return False if there is none."""
        return False

    @property
    def _diverged(self) -> bool:
        """True if the session ends because a translation was illegal."""
        return self._plan.stop_on_divergence and bool(self._pipeline.illegal)

    def _ending(self, error: CosimError | KeyboardInterrupt | None) -> Ending:
        interception = self._interception
        assert interception is not None
        instructions = _less(self._instructions, self._first_instruction)
        stepped: dict[str, Any] = {"instructions": interception.stepped, "share": None}
        if instructions:
            stepped["share"] = interception.stepped / instructions
        return Ending(
            complete=error is None and not self._diverged,
            reason=STOPPED if self._diverged else ended_by(error),
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
        self._watchers.view(self._progress(phase, place))

    def _progress(self, phase: str, place: str) -> Progress:
        seconds = time.monotonic() - self._started
        progress = Progress(phase, seconds, self._events, place, self._pipeline.exits())
        if phase == "recording":
            passed = time.monotonic() - self._recording_began
            left, remark = self._past.left(_RECORDING, passed)
            return replace(progress, left=left, remark=remark)
        # A region that ends before its guest ends at a place that is not known yet.
        if self._forecast is not None and self._plan.end.form in ("power-off", "console"):
            return replace(progress, left=self._forecast.left)
        return progress


def _less(count: int | None, other: int | None) -> int | None:
    return None if count is None or other is None else count - other


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python seldom look for garbage, and only among what is made from here on.

    It would look at all objects of all modules, which takes as long as some hundred stops.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _logged(file: Path | None) -> Iterator[None]:
    """Write what :data:`RSP_LOGGER` logs to ``file``.

    :raises StorageError: when it cannot be written.
    """
    if file is None:
        yield
        return
    try:
        handler = logging.FileHandler(file)
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(RSP_LOGGER)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
        handler.close()
