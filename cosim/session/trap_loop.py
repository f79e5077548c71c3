"""A guest that traps without end, because the trap vector itself faults.

The session looks for the loop itself, ends QEMU, and says where the guest is.  QEMU that records
such a guest answers nobody any more (see :mod:`cosim.debugger.peek`), so it is killed.

A guest whose handler returns to the fault is not ended: the handler may change its mind.  When the
time limit ends it, the message says which trap it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosim.debugger import peek
from cosim.debugger.rsp import Stub
from cosim.errors import RemoteError
from cosim.machine import process
from cosim.machine.configuration import RAM_BASE
from cosim.machine.qemu import Machine
from cosim.machine.waits import Linked
from cosim.run.plan import Plan
from hypervisor_model.isa import atp, causes, pte
from hypervisor_model.jit import signed

_MODES = ("s", "m")
_PARTS = ("tvec", "epc", "cause", "tval")
_NAMES = ("pc", "satp", *(mode + part for mode in _MODES for part in _PARTS))
_SECONDS = 0.5
_SPIN_SECONDS = 1.0
_AGAIN_SECONDS = 0.4
"""Two looks at least."""
_SELF_JUMPS = {2: 0xA001, 4: 0x6F}
"""``c.j 0`` and ``j 0``, by their size."""
_GROWTH = 4096
"""Each trap adds a byte to the recording, and QEMU writes it in blocks of this size."""
_SHARE = 0.2
"""The share of a processor that a guest without a recording needs at least if it loops.  One that
is stopped needs none."""
_INTERRUPT = 1 << 63
_ACCESSED_FOR = {
    causes.FETCH_PAGE_FAULT: pte.A | pte.X,
    causes.LOAD_PAGE_FAULT: pte.A | pte.R,
    causes.STORE_PAGE_FAULT: pte.A | pte.D | pte.W,
}
"""What a leaf must have for the access that faults."""


class TrapLoop(NamedTuple):
    """A trap that a guest takes again and again."""

    mode: str
    """``s`` or ``m``: the mode that takes the trap."""
    pc: int
    """Where each trap happens.  If the guest traps without end, it is also the trap vector."""
    cause: int
    tval: int
    satp: int

    def describe(self, plan: Plan, ram: NDArray[np.int64]) -> str:
        """Return in words where the guest traps without end, and what may help.

        :param ram: guest RAM as int64 words.
        """
        where = self.where(plan, ram)
        return f"the guest traps without end, at its own trap vector {where}"

    def where(self, plan: Plan, ram: NDArray[np.int64]) -> str:
        """Return in words where the trap happens, its cause, and what may help.

        :param ram: guest RAM as int64 words.
        """
        name = causes.NAMES.get(self.cause)
        cause = f"{self.mode}cause {self.cause}" + (f", {name}" if name else "")
        text = f"{plan.symbols.describe(self.pc)} ({cause}; {self.mode}tval {self.tval:#x})"
        if plan.cpu_properties.get("svade") and self._needs_hardware(ram):
            text += (
                "; its tables leave A and D to the hardware, and this CPU leaves them to software "
                f"(Svade): use {plan.names.setting('cpu', 'rv64')}"
            )
        return text

    def _needs_hardware(self, ram: NDArray[np.int64]) -> bool:
        """Return True if the walk ends at a leaf that lacks only A or D."""
        wanted = _ACCESSED_FOR.get(self.cause)
        if wanted is None:
            return False
        satp = signed(self.satp)
        table = int(atp.root(satp))
        for level in reversed(range(int(atp.levels(atp.mode(satp))))):
            index = self.tval >> int(pte.level_bits(level)) & pte.ENTRIES - 1
            at = (table + 8 * index - RAM_BASE) >> 3
            if not 0 <= at < len(ram):
                return False
            entry = int(ram[at])
            if not pte.is_link(entry):
                lacks = wanted & ~entry
                return bool(pte.is_leaf(entry)) and lacks != 0 and not lacks & ~(pte.A | pte.D)
            table = int(pte.target(entry))
        return False


class _Last(NamedTuple):
    """The last trap of a mode, for as long as each look has found the same."""

    trap: TrapLoop
    since: float
    work: float
    """What QEMU had worked then."""
    there: bool
    """True if a look found the guest at the trap or at its vector."""

    def again(self, trap: TrapLoop, now: float, work: float, *, there: bool) -> _Last:
        """Return what is known after one more look, which found ``trap``."""
        # The trap may come from any address space.
        if trap._replace(satp=0) == self.trap._replace(satp=0):
            return self._replace(trap=trap, there=self.there or there)
        return _Last(trap, now, work, there)


class TrapLoops:
    """Looks for a loop of traps in one machine that runs its guest.

    :param machine: has just been entered; its guest has not started.
    :param stub: its stub; None if nobody else uses it.
    :raises MachineError: when QEMU is gone.
    """

    def __init__(self, machine: Machine, stub: Stub | None = None) -> None:
        self._pid = machine.pid
        try:
            if stub is None:
                stub = Stub(machine.stub)
                stub.start()
            self._peek = peek.find(machine.pid, stub, _NAMES)
        except RemoteError as error:
            raise machine.cause(error) from error
        self._recording = machine.timing.log
        self._machine = machine
        self._pc = 0
        self._at_pc_since = time.monotonic()
        self._seen: TrapLoop | None = None
        self._since = 0.0
        self._work = 0.0
        self._last: dict[str, _Last] = {}
        """By mode."""
        self._looked = 0.0
        self._worked_last = 0.0

    def look(self) -> TrapLoop | None:
        """Return the loop that the guest has been in for at least half a second, if any."""
        if self._peek is None:
            return None
        try:
            registers = self._peek.read()
            work = self._worked()
        except OSError:
            return None
        loop = _loop(registers)
        now = time.monotonic()
        self._note(registers, now, work)
        if registers["pc"] != self._pc:
            self._pc, self._at_pc_since = registers["pc"], now
        if loop is None or loop != self._seen:
            self._seen, self._since, self._work = loop, now, work
            return None
        seconds = now - self._since
        # The guest may stand at its vector for another reason, but then it does not work.
        least = _GROWTH if self._recording is not None else _SHARE * seconds
        return loop if seconds >= _SECONDS and work - self._work >= least else None

    def _note(self, registers: dict[str, int], now: float, work: float) -> None:
        self._looked, self._worked_last = now, work
        for mode in _MODES:
            trap, vector = _last_trap(mode, registers)
            there = registers["pc"] in (trap.pc, vector)
            before = self._last.get(mode, _Last(trap, now, work, there))
            self._last[mode] = before.again(trap, now, work, there=there)

    def repeated(self) -> TrapLoop | None:
        """Return the trap that the guest takes again and again; None if there is none.

        Each of the last looks (:meth:`look`) found the same last trap, no interrupt, and one found
        the guest at its vector or where it comes from.  Meanwhile QEMU worked.
        """
        for last in self._last.values():
            seconds = self._looked - last.since
            least = _GROWTH if self._recording is not None else _SHARE * seconds
            worked = self._worked_last - last.work >= least
            is_trap = last.trap.cause and not last.trap.cause & _INTERRUPT
            if is_trap and last.there and worked and seconds >= _AGAIN_SECONDS:
                return last.trap
        return None

    def spins(self) -> bool:
        """Return True if each :meth:`look` of the last second found the guest at the same jump to
        itself."""
        if time.monotonic() - self._at_pc_since < _SPIN_SECONDS:
            return False
        return jumps_to_itself(self._pc, self._machine.ram_words(), self._machine.config.linked)

    def _worked(self) -> float:
        """Return the size of the recording in bytes; without one, QEMU's CPU time in seconds.

        :raises OSError: when there is no recording any more.
        """
        if self._recording is not None:
            return self._recording.stat().st_size
        return process.cpu_ticks(self._pid) / os.sysconf("SC_CLK_TCK")


def again(loops: TrapLoops | None, plan: Plan, ram: NDArray[np.int64]) -> str:
    """Return what a message adds about a guest that traps again and again; "" if it does not.

    :param ram: guest RAM as int64 words.
    """
    trap = None if loops is None else loops.repeated()
    if trap is None:
        return ""
    return f"; it traps again and again, at {trap.where(plan, ram)}"


def jumps_to_itself(pc: int, ram: NDArray[np.int64], linked: Sequence[Linked]) -> bool:
    """Return True if the instruction at ``pc`` is a jump to ``pc``.

    :param ram: guest RAM as int64 words.
    :param linked: where the kernel runs, beside its physical addresses.
    """
    content = ram.view(np.uint8)
    for at in (pc, *(pc - part.virtual + part.start for part in linked)):
        first = at - RAM_BASE
        for size, jump in _SELF_JUMPS.items():
            if 0 <= first <= len(content) - size:
                found = int.from_bytes(content[first : first + size].tobytes(), "little")
                if found == jump:
                    return True
    return False


def _loop(registers: dict[str, int]) -> TrapLoop | None:
    pc = registers["pc"]
    for mode in _MODES:
        trap, vector = _last_trap(mode, registers)
        # No fetch raises cause 0.  A mode that never trapped has it, and perhaps no vector either.
        if pc == vector == trap.pc and trap.cause and not trap.cause & _INTERRUPT:
            return trap
    return None


def _last_trap(mode: str, registers: dict[str, int]) -> tuple[TrapLoop, int]:
    """Return the last trap that ``mode`` took, and its vector."""
    vector, epc, cause, tval = (registers[mode + part] for part in _PARTS)
    return TrapLoop(mode, epc, cause, tval, registers["satp"]), vector & ~3
