"""A session through the TCG plugin: the guest runs once, at QEMU's speed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cosim.capture import marks
from cosim.capture.plugin.source import PluginSource
from cosim.capture.processes import Process
from cosim.errors import CosimError, GuestError, MachineError
from cosim.machine import interrupts, process
from cosim.machine.configuration import RAM_BASE, Timing
from cosim.machine.console import Console
from cosim.machine.dma import DmaWrites
from cosim.machine.qemu import Machine
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session import dialogue
from cosim.session.past_times import PastTimes
from cosim.session.protocol import STOPPED, Outcome, Progress, QemuCounts, Watchers, ended_by
from cosim.session.read_ahead import read_ahead
from cosim.session.recording import has_panicked, last_words, needs, panic_line
from cosim.session.trap_loop import TrapLoop, TrapLoops, again
from cosim.session.unexplained import UnexplainedWrites
from hypervisor_model.events import EventBatch

RECORDING = "plugin.recording.bin"
"""In a session's folder.  QEMU repeats a run exactly only if it records it; this recording is not
used again."""
_VIEW_SECONDS = 0.25
_WATCH_SECONDS = 0.1
_END_SECONDS = 5.0
"""How long QEMU may work, or stand still, after it was asked to end.  Then it is killed, without an
audit."""
_PATIENCE_SECONDS = 30.0
"""How long it may take in any case."""
_REST_SECONDS = 2.0
"""How long to wait for what the console of a guest that has ended still holds."""


class PluginOptions(Protocol):
    """How a user wants the plugin to work; the backend has them all as its options."""

    @property
    def accesses(self) -> bool | None:
        """False if accesses are not wanted."""

    @property
    def slots(self) -> int:
        """Slots of the access filter."""

    @property
    def gdb(self) -> Path | None:
        """The socket to make for the user's gdb."""

    @property
    def timing(self) -> Timing | None:
        """How the guest's time runs; None: as the plan says."""


class PluginSession:
    """One session through the plugin.

    :param plan: what to do.
    :param options: how the plugin does it.
    :param folder: an empty folder for the logs.
    :param pipeline: the models.
    :param watchers: who follows the session.
    """

    def __init__(
        self,
        plan: Plan,
        options: PluginOptions,
        folder: Path,
        pipeline: Pipeline,
        watchers: Watchers,
    ) -> None:
        self._plan = plan
        self._options = options
        self._folder = folder
        self._pipeline = pipeline
        self._watchers = watchers
        # Nobody stops a re-execution of it.
        recorded = Timing("record", folder / RECORDING, typed=plan.typed, split=frozenset())
        self._timing = options.timing or (Timing("live") if plan.live else recorded)
        self._started = time.monotonic()
        self._shown = 0.0
        self._events = 0
        self._began = threading.Event()
        self._end_seen = False
        self._halted = False
        self._out_of_time = False
        self._panicked = False
        self._taking = False
        """True while the models take in events; QEMU may wait for that."""
        self._killed = False
        """True if QEMU did not end when it was asked to."""
        self._dialogue_error: CosimError | None = None
        self._overflow: GuestError | None = None
        self._loop: TrapLoop | None = None
        self._unsent: EventBatch | None = None
        self._loops: TrapLoops | None = None
        # Another hart may work while one stays where it is.
        one = plan.machine.harts == 1
        self._watches_traps = (
            self._timing.mode in ("record", "live") and options.gdb is None and one
        )
        self._past = PastTimes(plan)
        self._part = ", ".join(["session", *pipeline.exits()])
        """What takes how long: models cost time."""
        self._estimates = self._timing.mode == "record" and options.gdb is None
        """True if the run takes as long as it did the last time."""
        self._dma: DmaWrites | None = None
        self._unexplained = UnexplainedWrites()
        self._source = source(plan, accesses=options.accesses is not False, slots=options.slots)

    def run(self) -> Outcome:
        """Do all of it (:meth:`cosim.session.protocol.Session.run`)."""
        error: CosimError | KeyboardInterrupt | None = None
        try:
            self._run()
            if self._estimates and not self._halted:
                self._past.keep(self._part, time.monotonic() - self._started)
        except (CosimError, KeyboardInterrupt) as problem:
            error = problem
        finally:
            # It is not used again, and may be large.
            (self._folder / RECORDING).unlink(missing_ok=True)
        if self._events == 0:
            return Outcome(None, error)
        ending = self._ending(error)
        return Outcome(self._pipeline.document(ending), error, ending, self._counts())

    def _counts(self) -> QemuCounts:
        begin = self._source.begin_place
        before = 0 if begin is None else begin.instructions - begin.retired
        return QemuCounts(before, self._source.calls)

    @property
    def labels(self) -> list[str]:
        """Labels of the marks met, by their number in MARK events."""
        return self._source.labels

    @property
    def processes(self) -> Mapping[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        # Another thread may read ahead.
        return dict(self._source.processes)

    def _run(self) -> None:
        plan = self._plan
        with (
            self._source as source,
            Machine(
                plan.qemu.path,
                plan.machine,
                folder=self._folder,
                name="plugin",
                timing=self._timing,
                plugin_arguments=tuple(source.qemu_args()),
                pass_fds=source.pass_fds,
                stub=self._watches_traps,
                gdb=self._options.gdb,
                watch_dma=True,
            ) as machine,
            self._watchers.attach(machine.console),
        ):
            source.started()
            self._dma = machine.dma
            if self._watches_traps:
                self._loops = TrapLoops(machine)
            socket = self._options.gdb
            if socket is None:
                if plan.live and plan.machine.harts == 1:
                    self._watchers.note(f"cosim: {machine.ram_note}")
                machine.resume()
            else:
                waits = f"the guest waits for gdb: (gdb) target remote {socket}"
                self._watchers.note(f"cosim: {waits}; {machine.ram_note}")
            # An interruption ends the guest first, so that its stream is whole.
            with interrupts.deferred():
                self._read(machine)
            if self._loop is not None:
                raise self._looping(self._loop, machine)
            if self._dialogue_error is not None:
                raise self._dialogue_error
            if self._overflow is not None:
                raise self._overflow
            self._check_end(machine)
            machine.console.check_log()

    def _read(self, machine: Machine) -> None:
        done = threading.Event()
        watches = (
            self._talk,
            self._watch_time,
            self._watch_interrupts,
            self._watch_console,
            self._watch_traps,
            self._watch_panic,
            self._watch_disks,
            self._watch_way,
        )
        threads = {
            watch: threading.Thread(target=watch, args=[machine, done], daemon=True)
            for watch in watches
        }
        for thread in threads.values():
            thread.start()
        try:
            for batch in read_ahead(self._source.batches()):
                self._taking = True
                if not self._halted:
                    self._take(batch, machine)
                self._taking = False
        except MachineError as cut:
            interrupts.check()
            if self._loop is not None:
                if self._unsent is not None and len(self._unsent):
                    self._take(self._unsent, machine)
                raise self._looping(self._loop, machine) from None
            if self._killed:
                raise self._ended_by_force(machine) from None
            raise self._explain(cut, machine) from None
        finally:
            done.set()
        # It looks once more at the console.
        threads[self._watch_console].join(_END_SECONDS)

    def _looping(self, loop: TrapLoop, machine: Machine) -> GuestError:
        text = loop.describe(self._plan, machine.ram_words())
        return GuestError(text, log=str(machine.console_log))

    def _take(self, batch: EventBatch, machine: Machine) -> None:
        self._events += len(batch)
        self._began.set()
        if self._plan.machine.has_dma:
            self._unexplained.take(batch)
        self._watchers.keep(batch)
        self._pipeline.feed(batch)
        if self._plan.stop_on_divergence and self._pipeline.illegal:
            self._halted = True
            self._stop(machine.pid)
        now = time.monotonic()
        if now - self._shown > _VIEW_SECONDS:
            self._shown = now
            place = f"{self._source.instructions:,} instructions"
            self._show("in the region", place, self._pipeline.exits())

    def _show(self, phase: str, place: str, exits: dict[str, int]) -> None:
        seconds = time.monotonic() - self._started
        left, remark = self._past.left(self._part, seconds) if self._estimates else (None, "")
        # The line has no room for a remark beside the exits.
        remark = "" if exits else remark
        self._watchers.view(
            Progress(phase, seconds, self._events, place, exits, left=left, remark=remark)
        )

    def _watch_way(self, machine: Machine, done: threading.Event) -> None:
        """Show progress until the region begins; there are no events before that."""
        while not self._began.is_set() and not done.wait(_VIEW_SECONDS):
            if not self._began.is_set():
                self._show("to the region", machine.console.last_line(), {})

    def _talk(self, machine: Machine, done: threading.Event) -> None:
        try:
            dialogue.hold(machine.console, self._plan.console, self._watchers.note)
        except CosimError as error:
            if not done.is_set() and self._loop is None:
                self._dialogue_error = error
                self._stop(machine.pid)

    def _is_over(self) -> bool:
        """Return True if the region has ended; its last events may still be worked on."""
        return self._source.summary is not None

    def _watch_time(self, machine: Machine, done: threading.Event) -> None:
        if not done.wait(self._plan.time_limit) and not self._is_over():
            self._out_of_time = True
            self._end(machine, done)

    def _watch_interrupts(self, machine: Machine, done: threading.Event) -> None:
        while not done.wait(_WATCH_SECONDS):
            if interrupts.pending():
                self._end(machine, done)
                return

    def _watch_traps(self, machine: Machine, done: threading.Event) -> None:
        """End a guest that traps without end.  QEMU hears nothing else if it records one."""
        while self._loops is not None and not done.wait(_VIEW_SECONDS):
            loop = self._loops.look()
            if self._is_over():
                return
            if loop is not None and self._plan.live:
                self._loop = loop
                self._end(machine, done)
                return
            if loop is not None:
                self._unsent = self._source.unsent(machine.pid)
                self._loop = loop
                self._stop(machine.pid, signal.SIGKILL)
                return

    def _watch_panic(self, machine: Machine, done: threading.Event) -> None:
        """End a guest that panicked.  Without panic=-1 on its command line it waits for ever."""
        while not done.wait(_VIEW_SECONDS):
            if has_panicked(machine, self._loops):
                self._panicked = True
                self._end(machine, done)
                return

    def _watch_disks(self, machine: Machine, done: threading.Event) -> None:
        """End a guest that writes more to its disks than it may."""
        while self._plan.machine.devices.limit is not None and not done.wait(_VIEW_SECONDS):
            try:
                machine.check_disks()
            except GuestError as error:
                if self._is_over():
                    return
                self._overflow = error
                self._stop(machine.pid)
                return

    def _end(self, machine: Machine, done: threading.Event) -> None:
        """Ask QEMU to end; kill it if it stands still, or works on for long.

        A guest that traps all the time keeps it from hearing, so the plugin is asked as well.
        Models that are slow to take its events keep it, too.
        """
        pid = machine.pid
        self._source.stop()
        self._stop(pid)
        asked = process.cpu_ticks(pid)
        began = time.monotonic()
        seen, since = asked, began
        while not done.wait(_WATCH_SECONDS):
            ticks = process.cpu_ticks(pid)
            now = time.monotonic()
            if ticks != seen or self._taking:
                seen, since = ticks, now
            worked = (ticks - asked) / os.sysconf("SC_CLK_TCK")
            idle = now - since
            if max(worked, idle) > _END_SECONDS or now - began > _PATIENCE_SECONDS:
                self._killed = True
                self._stop(pid, signal.SIGKILL)
                return

    def _watch_console(self, machine: Machine, done: threading.Event) -> None:
        """Begin and end the region where the console shows its edges."""
        if request_edges(self._plan, self._source, machine.console, self._began, done):
            self._end_seen = True

    @staticmethod
    def _stop(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
        # SIGTERM asks QEMU to end; the plugin then closes its stream.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _explain(self, cut: MachineError, machine: Machine) -> CosimError:
        if self._dialogue_error is not None:
            return self._dialogue_error
        if machine.wait(5):
            return MachineError(f"{machine.obituary()}; {cut}", log=str(machine.stderr_log))
        return cut

    def _late(self, machine: Machine, *, began: bool, remark: str = "") -> GuestError:
        plan = self._plan
        trap = again(self._loops, plan, machine.ram_words())
        return GuestError(
            f"{plan.time_limit:g} s passed and {plan.edge(end=began)} was not reached; the guest "
            f"is running{remark}{trap}; {last_words(machine.console.last_line())}; raise "
            f"{plan.names.option('time_limit')} or choose another edge",
            log=str(machine.console_log),
        )

    def _ended_by_force(self, machine: Machine) -> GuestError:
        killed = "QEMU did not end when it was asked to, so its last events are missing"
        if self._out_of_time:
            return self._late(machine, began=self._events > 0, remark=f" ({killed})")
        panic = panic_line(machine, stopped=self._panicked)
        how = f"the guest panicked ({panic}); " if panic else ""
        return GuestError(f"{how}{killed}", log=str(machine.console_log))

    def _check_end(self, machine: Machine) -> None:
        """Check that the region was reached, and whole.

        :raises GuestError: when it was not.
        """
        plan = self._plan
        summary = self._source.summary
        assert summary is not None
        log = str(machine.console_log)
        machine.console.drained(0.0 if summary.region_ended else 5.0)
        if self._out_of_time:
            raise self._late(machine, began=not summary.never_started)
        panic = None
        if not summary.region_ended:
            panic = panic_line(machine, stopped=self._panicked)
        how = f"the guest panicked ({panic})" if panic else "the guest ended"
        if summary.never_started:
            raise GuestError(
                f"{how} before the region began ({plan.edge(end=False)}); "
                f"{last_words(machine.console.last_line())}",
                log=log,
            )
        ended = summary.region_ended or self._end_seen or self._halted
        if not ended and plan.end.form != "power-off":
            raise GuestError(f"{how} before the region's end ({plan.edge(end=True)})", log=log)
        if panic:
            raise GuestError(f"the guest panicked: {panic}{needs(panic)}", log=log)

    def _ending(self, error: CosimError | KeyboardInterrupt | None) -> Ending:
        summary = self._source.summary
        audit = None
        if summary is not None:
            missed, by_device = self._unexplained.told_apart(self._dma)
            audit = {
                "checks": 1,
                "missed_writes": summary.missed + missed,
                "dma_writes": by_device,
                "hardware_ad_updates": summary.hardware_ad_updates,
            }
        return Ending(
            complete=error is None and not self._halted,
            reason=STOPPED if self._halted else ended_by(error),
            region={"instructions": None if summary is None else summary.instructions},
            audit=audit,
        )


def request_edges(
    plan: Plan,
    source: PluginSource,
    console: Console,
    began: threading.Event,
    done: threading.Event,
) -> bool:
    """Ask for the edges of the region that the console shows, when it shows them.

    :param began: is set when the region has begun.
    :param done: is set when there is nothing more to ask for.
    :return: True if the console showed the end.
    """
    begin, end = plan.begin, plan.end
    if begin.form == "console" and _shown(begin, console, done):
        source.begin()
    if end.form != "console":
        return False
    while not began.wait(_WATCH_SECONDS) and not done.is_set():
        pass
    if _shown(end, console, done):
        source.end()
        return True
    # The guest may have ended right after it had printed the line.
    return began.is_set() and console.seen(end.pattern, _REST_SECONDS)


def _shown(edge: Edge, console: Console, done: threading.Event) -> bool:
    while not done.is_set():
        if console.seen(edge.pattern, _WATCH_SECONDS):
            return True
    return False


def source(plan: Plan, *, accesses: bool, slots: int) -> PluginSource:
    """Return the plugin as the source of the plan's region."""
    return PluginSource(
        plan.qemu.path,
        memory=plan.machine.memory,
        ram_base=RAM_BASE,
        accesses="all" if accesses else "none",
        slots=slots,
        start=_limit(plan.begin),
        end=_limit(plan.end),
        mark=plan.mark_at,
        mark_in_user=plan.mark_at == marks.USER_MARK,
        firmware=plan.machine.bios != "none",
        cbo_block=plan.cbo_block,
        paging=plan.paging,
        devices=plan.machine.has_dma,
        processes=plan.naming.layout,
    )


def _limit(edge: Edge) -> str:
    """Return ``edge`` as the plugin takes it."""
    match edge.form:
        case "console":
            return "request"
        case "mark":
            return f"mark:{edge.label}"
        case "address":
            return f"pc:{edge.address:#x}"
        case "boot":
            return "boot"
        case "power-off":
            return "end"
