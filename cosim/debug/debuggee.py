"""The guest as a ``paging`` command sees it: registers, memory, the recording if there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cosim.capture.processes import Process
from cosim.debug.analysis import Analysis
from cosim.debug.counted_events import Place, Timeline, following
from cosim.debug.gdb_line import Aim, GdbLine
from cosim.debug.link import Link
from cosim.debug.rerun import Rerun
from cosim.errors import UnreadableMemory, UsageError
from cosim.kernel.places import Places
from cosim.machine.configuration import RAM_BASE
from cosim.paging.physical import PhysicalMemory, RamWords
from cosim.paging.scan import Scan, scan
from cosim.paging.space import Registers, Space

_REGISTERS = (
    *("satp", "vsatp", "hgatp", "mstatus", "sstatus", "vsstatus", "menvcfg", "henvcfg"),
    *("priv", "pc"),
)
_MODES = {0: "U", 1: "S", 3: "M", 4: "VU", 5: "VS"}
_LARGEST = 1 << 56
"""Physical addresses are at most 56 bits wide."""


class HasRam(Protocol):
    """What has guest RAM that we share."""

    @property
    def ram(self) -> NDArray[np.int64]:
        """Guest RAM from :data:`RAM_BASE` on."""


class ThroughGdb(PhysicalMemory):
    """Physical memory, read through the user's gdb."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def span(self) -> tuple[int, int]:
        """All that can be addressed: only the machine knows what is there."""
        return 0, _LARGEST

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises UnreadableMemory: when QEMU does not give them.
        """
        data = self._link.memory(address, length)
        if data is None:
            raise UnreadableMemory(f"gdb cannot read physical {address:#x}")
        return data


class StopRule(NamedTuple):
    """Where the guest is to stop."""

    numbers: NDArray[np.int64]
    """The events before whose instruction it stops, in rising order."""
    text: Callable[[int], str]
    """Returns what the user is told at an event."""
    note: str = ""
    """What the user must know of these places."""


class Recording:
    """A recorded run that is debugged.

    :param timeline: its events.
    :param rerun: its re-execution.
    :param line: between gdb and the re-execution.
    :param analysis: what the checker and the models say of it.
    :param places: names its addresses.
    """

    def __init__(
        self, timeline: Timeline, rerun: Rerun, line: GdbLine, analysis: Analysis, places: Places
    ) -> None:
        self.timeline = timeline
        self.rerun = rerun
        self.line = line
        self.analysis = analysis
        self.places = places
        self.rules: dict[str, StopRule] = {}
        """Where ``continue`` stops, by the name of what was asked for."""
        self.since = (0, 0)
        """The events before the stop before the last one, and before the last one."""
        line.next_stop = self._next_stop
        line.previous = self._previous
        line.on_event = lambda event, place: timeline.learn(event, place.count)

    @property
    def happened(self) -> int:
        """How many events lie before the instruction where the guest is."""
        return self.timeline.happened(self.rerun.now())

    def note_stop(self) -> None:
        """Note where the guest has stopped, for what is counted since the last stop."""
        self.since = self.since[1], self.happened

    def aim(self, event: int, reason: str) -> Aim:
        """Return the stop before the instruction that makes ``event``."""
        return Aim(self.timeline.place(event), reason, event)

    def _next_stop(self) -> Aim | None:
        now = self.rerun.now()
        # Not where the guest stands already.
        first = self.timeline.happened(now)
        while first < len(self.timeline) and self.timeline.place(first) == now:
            first += 1
        nexts = [(following(rule.numbers, first), rule) for rule in self.rules.values()]
        found = min((number for number, _ in nexts if number is not None), default=None)
        if found is None:
            return None
        texts = [rule.text(found) for number, rule in nexts if number == found]
        return self.aim(found, "\n".join(texts))

    def _previous(self) -> Place | None:
        now = self.rerun.now()
        first = self.timeline.happened(now)
        if first and now.pc is not None:
            last = self.timeline.place(first - 1)
            if last.count == now.count and last.pc != now.pc:
                # The guest is in the handler of the instruction that faulted.
                return last
        return Place(now.count - 1, None) if now.count else None


class Debuggee:
    """What the commands ask about.

    :param link: to the part inside gdb.
    :param ram: what has guest RAM that we share; None to read it through gdb.
    """

    def __init__(self, link: Link, ram: HasRam | None = None) -> None:
        self.link = link
        self._ram = ram
        self._recording: Recording | None = None
        self.scans: dict[str, Scan] = {}
        """Scans to compare with, by name."""

    def record(self, recording: Recording) -> None:
        """Take in the recorded run."""
        self._recording = recording

    @property
    def is_recorded(self) -> bool:
        """True if there is a recorded run."""
        return self._recording is not None

    @property
    def recording(self) -> Recording:
        """The recorded run.

        :raises UsageError: when there is none.
        """
        if self._recording is None:
            raise UsageError(
                "this needs a recorded run: start the guest with `cosim debug GUEST` or "
                "`cosim debug --kernel FILE`"
            )
        return self._recording

    def process(self) -> Process | None:
        """Return the process that owns the address space that the guest runs in.

        None if it is not known, as without a recorded run.
        """
        recording = self._recording
        return None if recording is None else recording.timeline.process(recording.happened)

    @property
    def shares_ram(self) -> bool:
        """True if memory is read without gdb."""
        return self._ram is not None

    def memory(self) -> PhysicalMemory:
        """Return guest memory as it is now."""
        return ThroughGdb(self.link) if self._ram is None else RamWords(self._ram.ram, RAM_BASE)

    def registers(self) -> Registers:
        """Return the registers of the hart that gdb looks at.

        :raises UsageError: when gdb does not know them.
        """
        values = self.link.registers(_REGISTERS)
        if all(values[name] is None for name in _REGISTERS):
            raise UsageError("gdb has no guest: connect it with `target remote`")
        satp = values["satp"]
        if satp is None:
            raise UsageError(
                "satp cannot be read here (mstatus.TVM is set, or the program under gdb is no "
                "RISC-V system); give --satp"
            )
        status = values["mstatus"] if values["mstatus"] is not None else values["sstatus"]
        return Registers(
            satp=satp,
            vsatp=values["vsatp"] or 0,
            hgatp=values["hgatp"] or 0,
            mstatus=status or 0,
            vsstatus=values["vsstatus"] or 0,
            menvcfg=values["menvcfg"] or 0,
            henvcfg=values["henvcfg"] or 0,
            mode=_MODES.get(1 if values["priv"] is None else values["priv"] & 7, "S"),
        )

    def space(self, mode: str | None = None, satp: int | None = None) -> Space:
        """Return the address space to ask about.

        :param mode: the privilege; None: the hart's own, but S if that is M, which has none.
        :param satp: used instead of the register.
        """
        registers = self.registers()
        if mode is None and registers.mode == "M":
            mode = "S"
        return registers.space(mode, satp)

    def scan(self, mode: str | None = None, satp: int | None = None) -> Scan:
        """Read all tables of an address space."""
        return scan(self.memory(), self.space(mode, satp))

    def now(self) -> Place | None:
        """Return where the recorded guest is; None if it is not recorded."""
        return None if self._recording is None else self._recording.rerun.now()
