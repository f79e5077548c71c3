"""A session with both sources: the plugin hears the recording, gdb works on its re-execution.

The guest is recorded with the plugin loaded, up to the end of the region.  gdb then intercepts the
re-execution of that very run, and each of its events must be one of the plugin's
(:mod:`cosim.session.merge`).  So every counter is there, and each source proves the other.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from cosim.capture.gdb.foretold import Foretold
from cosim.capture.gdb.interposer import Interposer
from cosim.capture.plugin.source import PluginSource
from cosim.capture.plugin.stream import Place, Summary
from cosim.capture.processes import Process
from cosim.debugger.mi import GdbMi
from cosim.errors import CosimError, GuestError, MachineError, StorageError
from cosim.machine.qemu import Machine
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session.forecast import WINDOW, long_rest
from cosim.session.gdb_session import REGION, GdbOptions, GdbSession
from cosim.session.merge import Merge
from cosim.session.plugin_session import request_edges, source
from cosim.session.protocol import Progress, Watchers
from cosim.session.recording import Recorded, last_words, record
from cosim.session.unexplained import UnexplainedWrites
from hypervisor_model import events
from hypervisor_model.events import EVENT, EventBatch

_PIECE = 1 << 20
"""Events of the plugin's stream that are looked at at once."""
_END_SECONDS = 30.0
"""How long the rest of the stream may take after QEMU has ended."""


class Heard:
    """What the plugin says of a recording, kept in a file without a name.

    :param plan: what is recorded.
    :param plugin: the source, which is open.
    :param folder: on the disk for the file.
    :raises StorageError: when the file cannot be made.
    """

    def __init__(self, plan: Plan, plugin: PluginSource, folder: Path) -> None:
        self._plan = plan
        self._plugin = plugin
        self._folder = folder
        self._began = threading.Event()
        self._ended = threading.Event()
        self._problem: CosimError | None = None
        self._count = 0
        self._unsent: EventBatch | None = None
        self.arguments = tuple(plugin.qemu_args())
        self.pass_fds = plugin.pass_fds
        self.end_seen = False
        """True if the console showed the end of the region."""
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror}") from None

    # -- while the guest is recorded ------------------------------------------------------------

    @contextmanager
    def listen(self, machine: Machine) -> Iterator[None]:
        """Take in the plugin's stream, and ask it for the edges that the console shows.

        :raises CosimError: when the stream is not whole; this is known on leaving.
        """
        self._plugin.started()
        reader = threading.Thread(target=self._read, name="plugin", daemon=True)
        edges = threading.Thread(target=self._watch, args=[machine], name="edges", daemon=True)
        reader.start()
        edges.start()
        try:
            yield
            # QEMU has ended, so the stream has, too.
            reader.join(_END_SECONDS)
            # It looks once more at the console.
            edges.join(_END_SECONDS)
            if isinstance(self._problem, StorageError):
                raise self._problem
            if self._unsent is not None:
                self._keep(self._unsent)
            elif self._problem is not None:
                raise self._problem
        except CosimError:
            if isinstance(self._problem, StorageError):
                # The cause of whatever failed then.
                raise self._problem from None
            raise
        finally:
            self._ended.set()

    def region_ended(self) -> bool:
        """Return True if the region has ended, or the stream is broken."""
        summary = self._plugin.summary
        return self._problem is not None or (summary is not None and summary.region_ended)

    def stop(self) -> None:
        """End the stream where the guest is, if it traps all the time."""
        self._plugin.stop()

    def before_kill(self, machine: Machine) -> None:
        """Take in what the plugin has not sent: the guest traps without end."""
        self._unsent = self._plugin.unsent(machine.pid)

    def _keep(self, batch: EventBatch) -> None:
        if len(batch):
            self._file.write(batch.tobytes())
            self._file.flush()
            self._count += len(batch)
            self._began.set()

    def _read(self) -> None:
        try:
            for batch in self._plugin.batches():
                self._file.write(batch.tobytes())
                self._count += len(batch)
                self._began.set()
            self._file.flush()
        except MachineError as problem:
            self._problem = problem
        except OSError as error:
            self._problem = StorageError(
                f"no space for the plugin's events in {self._folder} ({error.strerror}); "
                "free space, or choose a folder with --logs or COSIM_CACHE"
            )
            # What could not be written would be tried again when the file is dropped.
            with suppress(OSError):
                self._file.close()
            # QEMU would wait for a reader.
            self._plugin.close()
        finally:
            self._ended.set()

    def _watch(self, machine: Machine) -> None:
        console = machine.console
        if request_edges(self._plan, self._plugin, console, self._began, self._ended):
            self.end_seen = True

    # -- afterwards -----------------------------------------------------------------------------

    @property
    def killed(self) -> bool:
        """True if QEMU had to be killed, so that the plugin neither audited nor counted."""
        return self._unsent is not None

    @property
    def summary(self) -> Summary:
        """What the plugin said at the end; if it was killed, only what is known without it.

        :raises MachineError: when the plugin ended without saying it.
        """
        summary = self._plugin.summary
        if summary is None and self.killed:
            return Summary(False, not self._began.is_set(), self._count, 0, 0, 0, 0, 0)
        if summary is None:
            raise MachineError("the plugin did not say how the recording ended")
        return summary

    @property
    def labels(self) -> list[str]:
        """The labels of the region's marks."""
        return self._plugin.labels

    @property
    def processes(self) -> dict[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        return self._plugin.processes

    @property
    def begin(self) -> Place | None:
        """Where the region began, if not with the machine."""
        return self._plugin.begin_place

    @property
    def end(self) -> Place | None:
        """Where the region ended, if not with the machine."""
        return self._plugin.end_place

    @property
    def calls(self) -> list[int]:
        """Where QEMU counted instructions that did not retire
        (:attr:`~cosim.capture.plugin.stream.StreamReader.calls`)."""
        return self._plugin.calls

    def events(self) -> EventBatch:
        """Return the whole stream; the file stays mapped as long as it is used."""
        if not self._count:
            return events.empty(0)
        return np.memmap(self._file, dtype=EVENT, mode="r", shape=(self._count,))


class BothOptions(GdbOptions, Protocol):
    """How a user wants both sources to work; the backend has them all as its options."""

    @property
    def accesses(self) -> bool | None:
        """False if accesses are not wanted."""

    @property
    def slots(self) -> int:
        """Slots of the access filter."""

    @property
    def heard(self) -> Heard | None:
        """What the plugin said of the recording, if that is given."""


class BothSources(GdbSession):
    """One session with both sources.

    :param plan: what to do.
    :param options: how the sources do it.
    :param folder: an empty folder for the logs, the recording and the plugin's stream.
    :param pipeline: the models; fed from a thread of the session.
    :param watchers: who follows the session.
    """

    def __init__(
        self, plan: Plan, options: BothOptions, folder: Path, pipeline: Pipeline, watchers: Watchers
    ) -> None:
        super().__init__(plan, options, folder, pipeline, watchers)
        self._both = options
        self._heard: Heard | None = None
        self._merge: Merge | None = None
        self._at_end = False

    @property
    def labels(self) -> list[str]:
        """Labels of the marks met, by their number in MARK events."""
        return [] if self._heard is None else self._heard.labels

    @property
    def processes(self) -> Mapping[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        return {} if self._heard is None else self._heard.processes

    # -- the two runs ---------------------------------------------------------------------------

    def _run(self) -> None:
        if self._both.heard is not None:
            self._use(self._both.heard)
        try:
            super()._run()
        except CosimError:
            self._feed_rest()
            raise
        self._feed_rest()

    def _record(self, log: Path, limit: float, split: frozenset[int]) -> Recorded:
        plan = self._plan
        plugin = source(plan, accesses=self._both.accesses is not False, slots=self._both.slots)
        with plugin:
            heard = Heard(plan, plugin, self._folder)
            show, note = self._show, self._watchers.note
            recorded = record(
                *(plan, log, self._folder, limit, show, note),
                beside=heard,
                split=split,
                everywhere=self._steps,
            )
        self._recorded = recorded
        self._use(heard)
        return recorded

    def _use(self, heard: Heard) -> None:
        """Take what the plugin heard as the truth to compare with.

        :raises GuestError: when the region never began: no re-execution will find it either.
        """
        self._heard = heard
        self._merge = Merge(
            heard.events(),
            heard.labels,
            hardware_ad=self._pipeline.origin.machine.svadu,
            cut=heard.killed,
        )
        recorded = self._recorded
        if heard.summary.never_started and (recorded is None or recorded.loop is None):
            line = recorded.last_line if recorded is not None else ""
            said = last_words(line)
            log = self._folder / "record.console.log"
            begin = self._plan.begin
            if begin.form == "console":
                printed = re.search(begin.pattern, log.read_text(errors="replace"))
                self._printed_late = printed is not None
            raise GuestError(
                f"{self._end_of_guest()} before the region began ({self._plan.edge(end=False)})"
                f"{self._too_late()}; {said}",
                log=str(log),
            )

    def _foretold(self) -> Foretold | None:
        # Where the session may end at any stop, or steps behind it, each is handled for itself.
        if self._merge is None or self._plan.stop_on_divergence or self._steps:
            return None
        return Foretold(self._merge.common())

    def _told_sites(self) -> Collection[int]:
        return () if self._merge is None else self._merge.sites()

    def _reach(self, edge: Edge, machine: Machine, interposer: Interposer, gdb: GdbMi) -> bool:
        reached = self._go(edge, machine, interposer, gdb)
        self._at_end = self._began and reached
        return reached

    def _go(self, edge: Edge, machine: Machine, interposer: Interposer, gdb: GdbMi) -> bool:
        heard = self._heard
        if edge.form != "console" or heard is None:
            return super()._reach(edge, machine, interposer, gdb)
        place = heard.end if self._began else heard.begin
        if place is not None:
            return self._go_to(place, machine, interposer, gdb)
        # The guest ended right after it had printed the line.
        self._run_to_stop(machine, interposer, gdb)
        return heard.end_seen

    def _go_to(self, place: Place, machine: Machine, interposer: Interposer, gdb: GdbMi) -> bool:
        """Let the guest run to ``place``; return False if it ended before that.

        QEMU stops the re-execution at a count of instructions.  The plugin's count may be a few
        too low, so from there a breakpoint and all registers tell the place.  Where instructions
        are stepped, QEMU's stop might be lost, so the breakpoint tells it from the start.
        """
        steps = self._began and (self._options.step or self._options.step_all)
        if not steps:
            count = place.instructions - self._distance(place)
            now = machine.replay_icount()
            if now is not None and now < count:
                machine.qmp("replay-break", icount=count)
                self._run_to_stop(machine, interposer, gdb)
                if interposer.ended or self._halted:
                    return not interposer.ended
        while not self._stands_at(place, machine, interposer):
            with interposer.stopped() as interception:
                interception.stop_at(place.general)
            self._run_to_stop(machine, interposer, gdb)
            if interposer.ended or self._halted:
                return not interposer.ended
            with interposer.stopped() as interception:
                interception.stop_at(None)
        return True

    def _distance(self, place: Place) -> int:
        """Return how far before ``place`` QEMU is to stop.

        Not where the instruction before is one that gdb steps: the step might swallow the stop.
        """
        assert self._merge is not None
        expected = self._merge.last_counts(16)
        return next(near for near in range(17) if place.retired - near - 1 not in expected)

    @staticmethod
    def _stands_at(place: Place, machine: Machine, interposer: Interposer) -> bool:
        with interposer.stopped() as interception:
            state = interception.state()
        now = machine.replay_icount()
        return tuple(state.general) == place.general and (now is None or now >= place.instructions)

    @property
    def _halted(self) -> bool:
        return self._interception is not None and self._interception.halted

    def _look_ahead(self, machine: Machine, stops: int) -> None:
        if self._told or self._merge is None or not self._began:
            return
        # How many events there will be is known.
        passed = time.monotonic() - self._region_started
        total = self._merge.agreement.events
        text = long_rest(passed, self._merge.reached, total, self._plan.names)
        if text is not None:
            self._told = True
            self._watchers.note(f"cosim: {text}")

    def _check_end(self, machine: Machine, *, reached: bool) -> None:
        if not reached and self._heard is not None and self._heard.summary.region_ended:
            # The re-execution ended early.  The plugin has the rest.
            return
        super()._check_end(machine, reached=reached)

    # -- events ---------------------------------------------------------------------------------

    def _take(self, batch: EventBatch) -> None:
        assert self._merge is not None
        self._feed(self._merge.take(batch))
        if self._merge.differs and self._interception is not None:
            # The sources tell different stories from here on; only the plugin's is known to be
            # whole.
            self._interception.halted = True

    def _feed(self, pieces: Iterator[EventBatch]) -> None:
        for piece in pieces:
            if self._diverged:
                return
            super()._take(piece)

    def _feed_ahead(self) -> bool:
        # A guest may run for long without a stop, and the models need as long for its accesses.
        piece = None if self._merge is None else self._merge.ahead()
        if piece is None:
            return False
        super()._take(piece)
        return True

    def _feed_rest(self) -> None:
        """Give the models what gdb did not come to."""
        if self._merge is None or self._interception is None or not self._began:
            return
        late = self._interception.audit.late_sites
        self._feed(self._merge.finish(at_end=self._at_end, late_sites=late))

    def _ending(self, error: CosimError | KeyboardInterrupt | None) -> Ending:
        ending = super()._ending(error)
        if self._merge is None or self._heard is None:
            return ending
        summary, agreement = self._heard.summary, self._merge.agreement
        audit = dict(ending.audit or {})
        if not self._heard.killed:
            audit["checks"] += 1
            missed, by_device = self._unexplained()
            audit["missed_writes"] = max(audit["missed_writes"], missed) + summary.missed
            audit["dma_writes"] = max(audit["dma_writes"], by_device)
        shown = agreement.to_json() | {"late_sites": audit["late_sites"]}
        if agreement.difference is None:
            # The plugin saw each of them executed, or none: nothing was missed.
            audit |= {"late_sites": 0, "late_site_addresses": [], "missed_satp_writes": 0}
        # What the re-execution left out, the plugin has.
        region = {key: value for key, value in ending.region.items() if key != "not_replayed"}
        counted = ending.region.get("instructions")
        instructions = counted if self._heard.killed else summary.instructions
        stepped = dict(ending.stepped or {})
        stepped["share"] = stepped["instructions"] / instructions if instructions else None
        return replace(
            ending,
            region={**region, "instructions": instructions},
            stepped=stepped,
            audit=audit,
            agreement=shown,
        )

    def _unexplained(self) -> tuple[int, int]:
        """Return what the plugin found changed without a store: missed, and by a device."""
        writes = UnexplainedWrites()
        if self._heard is not None and self._plan.machine.has_dma:
            stream = self._heard.events()
            for first in range(0, len(stream), _PIECE):
                writes.take(stream[first : first + _PIECE])
        return writes.told_apart(self._dma)

    def _progress(self, phase: str, place: str) -> Progress:
        progress = super()._progress(phase, place)
        merge = self._merge
        if not self._began or merge is None or not merge.reached:
            return progress
        passed = time.monotonic() - self._region_started
        total = merge.agreement.events
        if passed < WINDOW:
            # A few events say nothing of the others; the last run may.
            left, _ = self._past.left(REGION, passed)
        else:
            left = passed * (total - merge.reached) / merge.reached
        return replace(progress, events=merge.reached, of=total, left=left)
