"""The re-execution of a recording, which can be sent to any instruction, forward or back.

QEMU stops a re-execution at a count of instructions (``replay-break``).  Going back is a second
re-execution up to the earlier instruction: QEMU's own reverse execution needs snapshots, and a
recording without a disk has none.  (With a disk, ``loadvm`` loses the timers of our ticks, and the
re-execution soon differs.)  So a second machine waits where the region begins, if that is far from
the start.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.debug.console_view import ConsoleView
from cosim.debug.counted_events import Place
from cosim.debugger.registers import parse_general
from cosim.debugger.rsp import StopReply, Stub
from cosim.errors import CosimError, MachineError, RemoteError
from cosim.machine.configuration import Timing
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan
from cosim.session.recording import Recorded

_POLL_SECONDS = 0.1
_TELL_SECONDS = 0.5
_STOP_SECONDS = 20.0
_FURTHER = 64
"""How many instructions a place may lie behind the count that is known of it."""

_FAR = 50_000_000
"""From so many instructions on, a second machine waits on the way (ours)."""

Asked = Callable[[], bool]
"""Returns True if the user asks the guest to stop."""
Tell = Callable[[int, int | None], None]
"""Is told now and then where the guest is, and how far it is to go (None: unknown)."""


class Why(Enum):
    """Why the guest stopped."""

    STUB = auto()
    """A breakpoint, a watchpoint or a step of gdb's."""
    PLACE = auto()
    """It is at the place that it was sent to."""
    ASKED = auto()
    """The user asked for it."""
    END = auto()
    """The recording ends here."""


class Stop(NamedTuple):
    """How a run ended."""

    why: Why
    reply: StopReply


class Rerun:
    """The re-execution.

    :param plan: what was recorded.
    :param recorded: how.
    :param log: the recording.
    :param folder: where the logs of the machines go.
    :param begin: where the region begins, and a second machine waits; None: at the first
        instruction, and none does.
    :param end: the last place of the recording; None if it is not known.
    :param view: shows the guest's console.
    """

    def __init__(
        self,
        plan: Plan,
        recorded: Recorded,
        log: Path,
        folder: Path,
        begin: Place | None,
        end: Place | None,
        view: ConsoleView,
    ) -> None:
        self._plan = plan
        self._recorded = recorded
        self._log = log
        self._folder = folder
        self._view = view
        self.begin = Place(0, None) if begin is None else begin
        self.end = end
        self._begin = 0 if begin is None else begin.count - 1
        self._spare: _Spare | None = None
        self._started = 0
        self._machine, self.stub = self._start()
        self.ended = False
        """True if the guest has come to the end of the recording."""
        view.show(self._machine.console)

    def close(self) -> None:
        """End QEMU."""
        if self._spare is not None:
            self._spare.machine.close()
        self._machine.close()

    def prepare(self) -> None:
        """Let a second machine run to where the region begins, while the user does other things."""
        if self._spare is None and self._begin >= _FAR:
            machine, stub = self._start()
            machine.qmp("replay-break", icount=self._begin)
            stub.resume(b"vCont;c")
            self._spare = _Spare(machine, stub)

    @property
    def ram(self) -> NDArray[np.int64]:
        """Guest RAM as it is now."""
        return self._machine.ram_words()

    def now(self) -> Place:
        """Return where the stopped guest is."""
        return Place(self._count(self._machine), self.general()[32])

    def general(self) -> list[int]:
        """Return x0..x31 and pc."""
        return parse_general(self.stub.request(b"g"))

    # -- forward --------------------------------------------------------------------------------

    def step(self) -> Stop:
        """Let the guest execute one instruction.

        :raises RemoteError: when QEMU does not end the step.
        """
        if self.ended:
            return _stop(Why.END)
        self.stub.resume(b"vCont;s")
        reply = self.stub.stop(_STOP_SECONDS)
        if reply is None:
            raise RemoteError(f"QEMU did not end a step within {_STOP_SECONDS:g} s")
        self.ended = reply.ended
        return Stop(Why.END if reply.ended else Why.STUB, reply)

    def run(self, to: Place | None, asked: Asked, tell: Tell | None = None) -> Stop:
        """Let the guest run.

        :param to: where it stops at the latest; None: the end of the recording.
        :param asked: is called several times a second.
        :param tell: is told where the guest is.
        """
        if self.ended:
            return _stop(Why.END)
        goal, is_end = to, False
        if self.end is not None and (to is None or to.count > self.end.count):
            goal, is_end = self.end, True
        stop = _run(self._machine, self.stub, goal, asked, tell)
        if stop.why is Why.PLACE and is_end:
            stop = _stop(Why.END)
        self.ended = stop.why is Why.END
        return stop

    # -- back -----------------------------------------------------------------------------------

    def back(self, to: Place, asked: Asked, tell: Tell | None = None) -> Stop:
        """Go back to ``to``, by a second re-execution.

        If the user asks to stop, the guest stays where it was.
        """
        machine, stub, stop = self._from_start(to.count, asked, tell)
        try:
            if stop is None:
                stop = _run(machine, stub, to, asked, tell)
        except BaseException:
            machine.close()
            raise
        if stop.why is Why.ASKED:
            machine.close()
            self.prepare()
            return stop
        self._machine.close()
        self._machine, self.stub = machine, stub
        self.ended = stop.why is Why.END
        self._view.show(machine.console, at=to.count)
        self.prepare()
        return stop

    def hits(
        self, points: list[bytes], before: int, asked: Asked, tell: Tell | None = None
    ) -> int | None:
        """Return the count at the last stop that ``points`` cause before ``before``; None if none.

        :param points: packets that insert breakpoints or watchpoints (``Z0,...``).
        """
        machine, stub, stop = self._from_start(before, asked, tell)
        last = None
        try:
            if stop is not None:
                return None
            for point in points:
                stub.request(point)
            while True:
                stop = _run(machine, stub, Place(before, None), asked, tell)
                count = self._count(machine)
                if stop.why is not Why.STUB or count >= before:
                    return last if stop.why is not Why.ASKED else None
                last = count
                if stop.reply.watch is None:
                    # A step ignores breakpoints.
                    stub.resume(b"vCont;s")
                    if stub.stop(_STOP_SECONDS) is None:
                        return last
        finally:
            machine.close()
            self.prepare()

    def _from_start(
        self, count: int, asked: Asked, tell: Tell | None
    ) -> tuple[Machine, Stub, Stop | None]:
        """Return a machine that stands before ``count``, and why it stopped if not as planned."""
        if self._spare is None or count <= self._begin:
            return (*self._start(), None)
        (machine, stub), self._spare = self._spare, None
        stop = _wait(machine, stub, count, asked, tell)
        return machine, stub, None if stop.why is Why.STUB else stop

    # -- machines -------------------------------------------------------------------------------

    def _start(self) -> _Spare:
        self._started += 1
        plan = self._plan
        machine = Machine(
            plan.qemu.path,
            plan.machine,
            folder=self._folder,
            name=f"reexecution{self._started}",
            timing=Timing("replay", self._log, typed=plan.typed, split=self._recorded.split),
            stub=True,
            hold=True,
        )
        machine.__enter__()
        try:
            stub = Stub(machine.stub)
            stub.start()
        except BaseException:
            machine.close()
            raise
        return _Spare(machine, stub)

    @staticmethod
    def _count(machine: Machine) -> int:
        count = machine.replay_icount()
        if count is None:
            raise MachineError(
                "QEMU does not say where its re-execution is", log=str(machine.stderr_log)
            )
        return count


class _Spare(NamedTuple):
    """A machine and its stub."""

    machine: Machine
    stub: Stub


def _stop(why: Why) -> Stop:
    return Stop(why, StopReply(b"T05thread:01;", 5))


def _run(machine: Machine, stub: Stub, goal: Place | None, asked: Asked, tell: Tell | None) -> Stop:
    """Let the guest run to the instruction ``goal``, or to what stops it before."""
    if goal is None:
        return _resumed(machine, stub, None, asked, tell)
    # An instruction that faults has the count of its handler, so come from the one before.
    count = goal.count - (goal.pc is not None)
    now = machine.replay_icount() or 0
    if now < count:
        machine.qmp("replay-break", icount=count)
        stop = _resumed(machine, stub, count, asked, tell)
        now = machine.replay_icount() or 0
        if stop.why is not Why.STUB or now < count:
            if machine.alive() and stop.why is not Why.END:
                machine.qmp("replay-delete-break")
            return stop
    if goal.pc is None:
        return _stop(Why.PLACE)
    for number in range(_FURTHER):
        pc = parse_general(stub.request(b"g"))[32]
        now = machine.replay_icount() or 0
        if pc == goal.pc and now >= goal.count:
            return _stop(Why.PLACE)
        stub.resume(b"vCont;s")
        reply = stub.stop(_STOP_SECONDS)
        if reply is None:
            raise RemoteError(f"QEMU did not end step {number} within {_STOP_SECONDS:g} s")
        if reply.ended:
            return Stop(Why.END, reply)
    raise CosimError(
        f"the re-execution did not come to {goal.pc:#x} near instruction {goal.count:,}; "
        "the recording and its re-execution differ, or the plugin's count does"
    )


def _resumed(
    machine: Machine, stub: Stub, goal: int | None, asked: Asked, tell: Tell | None
) -> Stop:
    stub.resume(b"vCont;c")
    return _wait(machine, stub, goal, asked, tell)


def _wait(machine: Machine, stub: Stub, goal: int | None, asked: Asked, tell: Tell | None) -> Stop:
    """Wait until the guest, which runs, stops."""
    told = time.monotonic() + _TELL_SECONDS
    was_asked = False
    while True:
        reply = stub.stop(0) if stub.has_read else None
        if reply is None and select.select([stub], [], [], _POLL_SECONDS)[0]:
            reply = stub.stop(0)
        if reply is not None:
            if reply.ended:
                return Stop(Why.END, reply)
            return Stop(Why.ASKED if was_asked else Why.STUB, reply)
        if not was_asked and asked():
            was_asked = True
            stub.interrupt()
        if tell is not None and time.monotonic() > told:
            count = machine.replay_icount()
            if count is not None:
                tell(count, goal)
            told = time.monotonic() + _TELL_SECONDS
