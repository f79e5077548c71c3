"""The gdb source: what happens at the stops that interception owns.

:class:`Interception` holds breakpoints on the guest's fences and ``satp`` writes, and watchpoints
on its live tables, all in QEMU's stub and out of gdb's sight.  At each stop the interposer
(:mod:`cosim.capture.gdb.interposer`) asks if interception owns it.  If so, one instruction goes
this way, and each part hands the next one a record:

1. :mod:`~cosim.capture.gdb.classify` says what is about to execute (a ``Stop``);
2. QEMU translates what it will touch, and steps it;
3. :mod:`~cosim.capture.gdb.effects` says what it did (an ``Executed``) and writes its events;
4. :mod:`~cosim.capture.gdb.samples` writes what was translated;
5. :mod:`~cosim.capture.gdb.audit` compares the tables in RAM with what the events have told;
6. :mod:`~cosim.capture.gdb.coverage` moves the stop points along.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from cosim.capture import marks
from cosim.capture.encodings import InstructionKind
from cosim.capture.gdb import ahead, effects, pmp, samples, virtual_stores
from cosim.capture.gdb.audit import Audit, Auditor, nothing
from cosim.capture.gdb.classify import Classifier, Stop
from cosim.capture.gdb.coverage import Coverage
from cosim.capture.gdb.effects import Executed
from cosim.capture.gdb.foretold import Foretold, Next
from cosim.capture.gdb.layout import GuestLayout
from cosim.capture.gdb.stepping import Countdown, Stepping
from cosim.capture.gdb.stop_points import StopPoints
from cosim.capture.gdb.stopped_guest import HartState, StoppedGuest
from cosim.capture.log import EventLog
from cosim.capture.processes import Process
from cosim.capture.tables import LiveTables
from cosim.debugger.registers import parse_general
from cosim.debugger.rsp import StopReply, Stub
from cosim.errors import GuestError
from hypervisor_model.events import EventBatch, Kind, Priv
from hypervisor_model.isa import pte
from hypervisor_model.jit import signed, unsigned

_BATCH = 4096
_BATCH_SECONDS = 1.0
_RAN_ON_SECONDS = 0.25
"""As `_BATCH_SECONDS`, if the guest runs on without a stop."""
_IN_ONE_GO = 16
"""After this many foretold stops, other work gets its turn."""
_SOON_SECONDS = 0.02
"""Stops that are foretold mostly come within this."""
_LOOK_SECONDS = 5e-5
_LOOKS = 40
"""RAM is looked at so often, that far apart, for a store that the guest is about to execute."""
_TRAPPED = 5
"""The signal of a stop at a point."""
_STORES = (InstructionKind.STORE, InstructionKind.AMO, InstructionKind.CBO_ZERO)
"""Stores whose effect the tables show: ``sc`` has a result, and a vector store other pages."""


class Interception:
    """Owns the stops at fences, ``satp`` writes, marks and table stores of one guest.

    :param stub: QEMU's stub; the guest is stopped.
    :param layout: where the guest keeps what is looked at.
    :param sink: takes each batch of events, while the guest runs.
    :param stepping: which instructions are stepped for their accesses.
    :param one_by_one: hand the events over after each stop, before the guest goes on.
    :param foretold: the events to come, if they are known.
    :param told: where the guest is known to fence or to write ``satp``.  A guest may load such code
        without any sign of it.  An address that was not found as well counts as a late site.
    :param by_device: returns True if a device has written to the entry at an address.
    :raises RemoteError: when the stub refuses, is gone or does not answer; each method raises it.
    """

    def __init__(
        self,
        stub: Stub,
        layout: GuestLayout,
        sink: Callable[[EventBatch], None],
        *,
        stepping: Stepping | None = None,
        one_by_one: bool = False,
        foretold: Foretold | None = None,
        told: Collection[int] = (),
        by_device: Callable[[int], bool] = nothing,
    ) -> None:
        self._guest = StoppedGuest(stub)
        self._layout = layout
        self._mark_at = layout.mark_at
        self._loop = layout.loop
        self._sink = sink
        self._foretold = foretold
        self._pending: Stop | ahead.Stepped | None = None
        """A fence whose step is done."""
        self._prepared: ahead.Plain | None = None
        self._due: ahead.Due | None = None
        """A store for which the guest is let go, until RAM shows it."""
        self._foretold_stops = 0
        self._one_by_one = one_by_one
        self._log = EventLog()
        self._last_batch = 0.0
        self._tables = LiveTables(
            layout.ram, layout.base, self._log, layout.paging, layout.processes
        )
        self._points = StopPoints(stub)
        self._coverage = Coverage(layout, self._tables, self._points, told)
        self._classifier = Classifier(self._guest, layout)
        self._auditor = Auditor(self._tables, self._coverage, by_device)
        self._countdown = Countdown(stepping or Stepping())
        self.active = False
        """True inside the region."""
        self.labels = marks.Labels()
        """The marks met."""
        self._executed_suspects: set[int] = set()
        self.stop_at_marks: set[str] = set()
        """A mark with one of these labels is shown to gdb, before its instruction executes."""
        self._place: list[int] | None = None
        self.stops = 0
        """How many instructions were handled, from the start of the guest on."""
        self.stepped = 0
        """How many of the region's instructions were stepped for their accesses."""
        self.pc = 0
        """Where the last stop was."""
        self.loops = False
        """True if the guest traps without end from here on."""
        self.halted = False
        """Set by the sink: the guest must not go on."""

    # -- the region -----------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin the region of interest at this stop: read the tables, insert the points.

        :raises GuestError: when the guest runs a virtual machine (V=1).
        """
        state = self._guest.state()
        if state.virtual:
            raise GuestError(
                "the region begins in a virtual machine of the guest (V=1), where the satp of the "
                "guest itself cannot be read; begin it elsewhere"
            )
        self._log.pc, self._log.priv = state.pc, state.priv
        self._tables.start(state.satp)
        self._tables.paging.begin(self._guest.find, self._log)
        self._coverage.begin()
        self._points.sync()
        self.active = True
        self._countdown.begin()
        # Compile the kernel of this, and let the models take in the first tables, now: not between
        # two stops.
        self._tables.differences()
        self._came(0)
        self.flush()

    def end(self, *, alive: bool) -> None:
        """End the region at this stop, with a last audit.

        :param alive: the guest goes on, so the points are removed.
        """
        if not self.active:
            return
        state = self.state()
        # What the last audit finds belongs to this place.
        self._log.pc, self._log.priv = state.pc, state.priv
        if not state.virtual:
            self._check_satp(state.satp)
        self._tables.processes.leaves(self._tables.satp)
        self._auditor.check_tables()
        self._auditor.check_text()
        self._drop_closed_sites()
        self.active = False
        if alive:
            self._coverage.end()
            self._points.sync()
        self.flush()

    def _drop_closed_sites(self) -> None:
        """Take data of the firmware out of the late sites: PMP keeps S-mode from executing it.

        Firmware keeps copies of instructions that it emulates, and many kernels map its memory.
        """
        if self.audit.late_sites:
            closed = self._coverage.closed(pmp.regions(self._guest.find))
            self.audit.late_sites -= closed - self._executed_suspects

    @property
    def audit(self) -> Audit:
        """What the audits have found."""
        return self._auditor.audit

    def points(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return the addresses of the breakpoints and of the page watchpoints held now."""
        return frozenset(self._points.breaks), frozenset(self._points.watches)

    @property
    def processes(self) -> dict[int, Process]:
        """The processes that own address spaces, by the number in SATP_WRITE events."""
        return self._tables.processes.found

    def flush(self) -> None:
        """Hand the events collected so far to the sink."""
        self._last_batch = time.monotonic()
        if len(self._log):
            self._sink(self._log.take())

    def idle(self, *, ran_on: bool = False) -> None:
        """Let the models work if there is enough for them; called while the guest runs.

        :param ran_on: the guest has run for a while, and no stop may come for long.
        """
        if self._take_in_due():
            self._prepare()
        seconds = _RAN_ON_SECONDS if ran_on else _BATCH_SECONDS
        if len(self._log) >= _BATCH or (
            len(self._log) and time.monotonic() - self._last_batch > seconds
        ):
            self.flush()

    def stop_at(self, general: Sequence[int] | None) -> None:
        """Show the guest to gdb where its x0..x31 and pc are ``general``; None: nowhere."""
        if self._place is not None:
            self._coverage.leave_place()
        self._place = None if general is None else list(general)
        if self._place is not None:
            self._coverage.break_at_place(self._place[-1])
        self._points.sync()

    # -- stops ----------------------------------------------------------------------------------

    @property
    def stepping(self) -> bool:
        """True if the next instruction is to be stepped, not run to."""
        return self.active and bool(self._countdown) and not self._coverage.skips_firmware

    def state(self) -> HartState:
        """Return the registers of the stopped guest, for :meth:`execute`."""
        self._end_due()
        self._settle(None)
        return self._guest.state()

    def owns(self, reply: StopReply | None, pc: int) -> bool:
        """Return True if a stop is interception's.

        :param reply: what QEMU said; None if the guest has not run since the last stop.
        :param pc: where the guest stands.
        """
        return self._points.own(reply, pc)

    def resume(self, payload: bytes) -> None:
        """Let the guest run: ``vCont;c`` or ``vCont;s``."""
        self._prepared = None
        if self._due is not None:
            self._let_store(self._due, payload)
        elif self._pending is not None:
            self._settle(payload)
        else:
            self._guest.go(payload)
            self._prepare()

    def execute_foretold(self, reply: StopReply) -> bool:
        """Execute the instruction of a stop whose event is foretold.

        All requests go out at once: the registers, the translations, the step.  What comes back is
        handled like that of :meth:`execute`, also if it is not what was foretold.  Most stops are
        plain (:mod:`cosim.capture.gdb.ahead`), so less is asked.

        :param reply: what QEMU said, with the watched page; the guest is where it stopped.
        :return: False if nothing was done: this stop must be handled with care.
        :raises GuestEnded: when the guest ends in the instruction.
        """
        if self._end_due():
            self._prepare()
        watch = reply.watch
        plain, self._prepared = self._prepared, None
        if plain is not None and plain.watch == watch:
            return self._step_fence(plain) if watch is None else self._expect_store(plain, watch)
        event = self._to_come()
        if event is None or not self._fits(event, reply):
            return False
        hidden = set() if watch is None else self._coverage.hide(frozenset({watch}))
        addresses = [event.pc]
        if watch is not None:
            addresses.append(watch | (event.a & (pte.PAGE - 1)))
        self._guest.start_ahead(addresses)
        self._log.pc, self._log.priv = event.pc, event.priv
        logged = len(self._log)
        if watch is None:
            # A fence writes no table, so the tables can be compared while QEMU executes it.
            self._auditor.check_tables()
        registers = self._guest.registers_ahead()
        answers = self._guest.translations(len(addresses))
        again = self._guest.finish_step().watch is not None
        state = self._guest.state_ahead(registers)
        self._coverage.reveal(hidden)
        if again:
            # A further watchpoint has stopped the instruction before it did anything.
            self._points.sync()
            return False
        self._take_in_stepped(event.pc, state, dict(zip(addresses, answers, strict=True)), logged)
        return True

    def run_ahead(self, stop: StopReply) -> tuple[bool, StopReply | None]:
        """Handle a stop, and those after it, as long as they were foretold; a few of them.

        :return: False if the last stop must be handled with care, True if it may be given to this
            again; and the last stop, or None if the guest runs.
        """
        for _ in range(_IN_ONE_GO):
            page = self._points.watched_page(stop)
            if page != stop.watch:
                # As long as this stop is handled, though points may move: a step may be in vain.
                stop = replace(stop, watch=page)
            if self.halted or not self.execute_foretold(stop):
                return False, stop
            self.resume(b"vCont;c")
            following = self._guest.wait(_SOON_SECONDS)
            if following is None:
                return True, None
            stop = following
            if stop.signal != _TRAPPED:
                break
        return True, stop

    def _step_fence(self, plain: ahead.Plain) -> bool:
        """Step a fence that should be plain; return False if nothing was done."""
        guest = self._guest
        guest.ask_plain(step=True)
        self._log.pc, self._log.priv = plain.pc, plain.priv
        logged = len(self._log)
        # A fence writes nothing, so tables and text can be looked at while QEMU executes it.
        # What the kernel has patched needs its points before the guest goes on.
        self._auditor.check_tables()
        self._coverage.scan_again()
        self._came(logged)
        logged = len(self._log)
        same = self._classifier.holds(plain.instruction, plain.code_at)
        state = guest.plain_state()
        # QEMU still steps: from its answer on, the guest waits for each line of this.
        stands = same and plain.stands(state)
        if guest.finish_step().watch is not None:
            # It is no fence, and a watchpoint has stopped it before it did anything.
            return False
        if not stands:
            before = guest.state_after(state, unsigned(self._tables.satp))
            self._take_in_stepped(plain.pc, before, {}, logged)
            return True
        self.stops += 1
        self.pc = plain.pc
        self._pending = ahead.Stepped(plain, state)
        return True

    def _expect_store(self, plain: ahead.Plain, watch: int) -> bool:
        """Make ready to let the guest go with a store; return False if the stop is not plain."""
        entry = plain.entry
        self._guest.ask_plain()
        same = self._classifier.holds(plain.instruction, plain.code_at)
        state = self._guest.plain_state()
        if entry is None or not same or not plain.stands(state):
            return False
        new = plain.leaves(state, unsigned(self._tables.in_ram(entry)))
        if new is None or not self._tables.is_plain_store(entry, signed(new)):
            return False
        va = watch | plain.pa & (pte.PAGE - 1)
        self._due = ahead.Due(plain, va, entry, signed(new))
        return True

    def _let_store(self, due: ahead.Due, payload: bytes) -> None:
        """Let the guest run on with a plain store, and write its event meanwhile."""
        self._points.sync()
        self._points.leave_out(due.va)
        self._guest.go(payload)
        for _ in range(_LOOKS):
            if self._take_in_due():
                self._prepare()
                return
            if self._guest.has_sent(_LOOK_SECONDS):
                return

    def _take_in_due(self) -> bool:
        """Take in the store that the guest was let go for; return False if RAM does not show it."""
        due = self._due
        if due is None or not self._tables.shows(due.entry, due.new):
            return False
        self._due = None
        plain = due.plain
        self.stops += 1
        self.pc = plain.pc
        logged = len(self._log)
        self._log.pc, self._log.priv = plain.pc, plain.priv
        self._tables.plain_store_done(plain.pa, plain.instruction.size, plain.op, due.new)
        self._coverage.update()
        self._auditor.note(plain)
        self._countdown.renew()
        self._came(logged)
        return True

    def _end_due(self) -> bool:
        """Take in the store that the guest was let go for, and return True, if it has executed it.

        If not, something else has stopped the guest.  It will stop at the store again.
        """
        executed = self._take_in_due()
        self._due = None
        return executed

    def _take_in_stepped(
        self, pc: int, state: HartState, foreseen: dict[int, int | None], logged: int
    ) -> None:
        """Take in an instruction that was stepped before it was looked at.

        :param pc: where the foretold event was to happen.
        :param state: the guest before the step.
        :param foreseen: the translations that were asked for before the step.
        :param logged: how many events the log had then.
        """
        self.stops += 1
        self.pc = state.pc
        self._begin_stop(state)
        stop = self._classifier.classify(state)
        *asked, _ = stop.asked
        unforeseen = [part.va for part in asked if part.va not in foreseen]
        if unforeseen:
            foreseen.update(zip(unforeseen, self._guest.translate(unforeseen), strict=True))
        # sp costs a question, and what is foretold does not name it.
        stop = stop.translated(stop.asked, [*(foreseen[part.va] for part in asked), None])
        self._classifier.remember(stop)
        if state.pc == pc and stop.instruction.kind is InstructionKind.FENCE:
            # If it completed is asked along with the next request.  What the kernel has patched
            # needs its points before the guest goes on.
            self._coverage.scan_again()
            self._came(logged)
            self._pending = stop
            return
        # A write of satp that was not foretold: the state has its old value.
        executed = effects.after_step(stop, state.satp, self._guest, self._tables)
        if not executed.interrupted:
            self._take_in(executed)
        self._points.sync()
        self._came(logged)

    def _to_come(self) -> Next | None:
        ready = self.active and not self._countdown and self._place is None
        if self._foretold is None or not ready or self._coverage.skips_firmware:
            return None
        return self._foretold.next()

    def _fits(self, event: Next, reply: StopReply) -> bool:
        """Return True if a stop may be the foretold event, and the instruction there is known."""
        known = self._classifier.known(event.pc, event.priv)
        if known is None or not self._points.own(reply, event.pc):
            return False
        if reply.watch is None:
            return event.kind == Kind.FENCE and known.kind is InstructionKind.FENCE
        return event.kind == Kind.PTE_WRITE and known.kind in _STORES

    def _settle(self, payload: bytes | None) -> None:
        """Take in the fence whose step is done, if there is one; let the guest run then.

        :param payload: how it is to run; None: it stays.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if payload is not None:
            self._points.sync()
            self._guest.resume(payload, asking="pc")
        logged = len(self._log)
        if isinstance(pending, Stop):
            # It may be a later stop's by now.
            self._log.pc, self._log.priv = pending.pc, pending.state.priv
            if self._came_to(pending.behind, payload):
                self._take_in(effects.completed(pending), scanned=True)
        else:
            plain = pending.plain
            self._log.pc, self._log.priv = plain.pc, plain.priv
            general = parse_general(pending.state.general)
            sub, va, asid = plain.instruction.fence_operands(general)
            if not self._came_to(plain.behind, payload):
                return
            self._log.add(Kind.FENCE, va, asid, sub=sub)
            self._auditor.note(plain)
            self._countdown.renew()
        self._came(logged)
        if payload is not None:
            self._prepare()

    def _came_to(self, behind: int, payload: bytes | None) -> bool:
        """Return True if a fence was executed: its step may have taken an interrupt instead.

        The guest comes back to the fence then.
        """
        after = self._guest.read("pc") if payload is None else self._guest.asked()
        return after == behind

    def _prepare(self) -> None:
        """Make ready for the next stop, while the guest runs."""
        self._foretold_stops += 1
        event = self._to_come()
        if event is not None and self._foretold_stops % ahead.SAMPLED_EVERY:
            self._prepared = ahead.prepare(event, self._classifier, self._coverage, self._tables)

    def _came(self, logged: int) -> None:
        if self._foretold is not None and len(self._log) > logged:
            self._foretold.came(self._log.since(logged))

    def execute(self, state: HartState) -> bool:
        """Execute the one instruction at pc and record what it does.

        :param state: what :meth:`state` has just returned.
        :return: False if gdb is to see this mark or place, or the guest can only trap from here
            on; nothing is executed then.
        :raises GuestEnded: when the guest ends in the instruction.
        """
        self.stops += 1
        self.pc = state.pc
        if self._loop is not None and state.pc == self._loop.at:
            # Other traps come to the vector, too.
            self.loops = self._guest.read(self._loop.epc) == state.pc
            if self.loops:
                return False
        logged = len(self._log)
        if self.active:
            self._begin_stop(state)
        if self._place == state.general:
            return False
        label = marks.label(state.general) if state.pc == self._mark_at else None
        if label in self.stop_at_marks:
            return False
        if not self.active:
            self._guest.step()
            return True
        if self._coverage.skips_firmware and state.priv != Priv.M:
            self._coverage.firmware_left()
        executed = self._step(self._classifier.classify(state))
        if executed.trap is not None and executed.trap.in_firmware and self.stepping:
            self._skip_firmware(executed.stop)
        if not executed.interrupted:
            if label is not None:
                self._log.add(Kind.MARK, self.labels.number(label))
            self._take_in(executed)
        self._came(logged)
        self._points.sync()
        if self._one_by_one:
            self.flush()
        return True

    def _begin_stop(self, state: HartState) -> None:
        # What retires a root depends on pc, and what an audit finds belongs to this stop.
        self._log.pc, self._log.priv = state.pc, state.priv
        if not state.virtual:
            self._check_satp(state.satp)
        if self._coverage.is_suspect(state.pc, state.priv):
            self._executed_suspects.add(state.pc)
            self.audit.late_sites.add(state.pc)

    def _step(self, stop: Stop) -> Executed:
        """Step the instruction, with the translations of what it touches as they were before."""
        guest, kind = self._guest, stop.instruction.kind
        old_atp = effects.before_step(stop, guest)
        virtual = virtual_stores.written(stop, guest, self._layout.ram, self._layout.base)
        # A vector store may touch any page: its registers do not say which.
        touched = None if kind is InstructionKind.VECTOR_STORE else stop.pages
        asked = stop.asked
        hidden = self._coverage.hide(touched)
        guest.start_step([part.va for part in asked])
        if kind in (InstructionKind.FENCE, InstructionKind.ENVCFG_WRITE):
            # These write no table, so the tables can be compared while QEMU executes them.
            self._auditor.check_tables()
        stop = stop.translated(asked, guest.translations(len(asked)))
        watch = guest.finish_step().watch
        unforeseen = False
        while watch is not None and (more := self._coverage.hide(frozenset((watch,)))):
            # It stores where its operands do not say.  It must execute all the same: no stop may
            # come again and again.
            hidden |= more
            unforeseen = True
            watch = guest.step().watch
        self._coverage.reveal(hidden)
        self._classifier.remember(stop)
        executed = effects.after_step(stop, old_atp, guest, self._tables, virtual)
        return executed._replace(unforeseen=unforeseen)

    def _skip_firmware(self, stop: Stop) -> None:
        """Run until M-mode, whose accesses are not translated, returns to the kernel."""
        after = stop.pc + stop.instruction.length
        self._coverage.skip_firmware({stop.pc, after, self._guest.read("stvec") & ~3})

    def _take_in(self, executed: Executed, *, scanned: bool = False) -> None:
        """Write the events of an instruction, and follow what it changed.

        :param scanned: text was scanned again already.
        """
        stepped = bool(self._countdown)
        samples.record(executed, stepped, self._log)
        self._countdown.spend()
        self.stepped += stepped
        effects.record(executed, self._guest, self._tables, self._log)
        if executed.intercepted:
            self._auditor.note(executed)
            self._countdown.renew()
        kind = executed.stop.instruction.kind
        if executed.trap is None and kind is InstructionKind.FENCE and not scanned:
            self._coverage.scan_again()
        self._coverage.update()

    def _check_satp(self, satp: int) -> None:
        if self._auditor.check_satp(satp, self.pc):
            self._coverage.update()
            self._points.sync()
