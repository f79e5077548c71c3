"""The recorded events, and at which instruction of QEMU's own count each of them is.

The plugin counts instructions that retired.  QEMU's recording counts further ones: those whose
purpose is to trap, which the plugin lists, and some that do not exist, which it cannot tell.  So
the count of an event is a lower bound until the re-execution has been there
(:meth:`Timeline.learn`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.capture.processes import Process
from hypervisor_model.events import FLAG_CONT, FLAG_STOP, EventBatch, Kind, Satp
from hypervisor_model.jit import unsigned


@dataclass(frozen=True)
class Place:
    """A moment of the recorded run: before the instruction at ``pc``."""

    count: int
    """How many instructions QEMU had executed, by its own count; a lower bound."""
    pc: int | None
    """None if only the count is known."""


class Timeline:
    """The events of one recording, in order.

    :param events: as the plugin told them.
    :param before: instructions before the region that QEMU counts and that did not retire.
    :param calls: how many instructions had retired at each such instruction since.
    :param processes: the processes, by the number in SATP_WRITE events.
    """

    def __init__(
        self,
        events: EventBatch,
        before: int,
        calls: Sequence[int],
        processes: Mapping[int, Process] | None = None,
    ) -> None:
        self.events = events
        self.processes = processes or {}
        loads = (events["kind"] == int(Kind.SATP_WRITE)) & (events["sub"] == int(Satp.SATP))
        self._loads = np.flatnonzero(loads)
        icount = np.asarray(events["icount"], np.int64)
        further = np.searchsorted(np.asarray(calls, np.int64), icount, side="right")
        self._counts: NDArray[np.int64] = icount + before + further

    def __len__(self) -> int:
        return len(self.events)

    def place(self, event: int) -> Place:
        """Return the place of the instruction that made ``event``."""
        return Place(int(self._counts[event]), unsigned(int(self.events["pc"][event])))

    def learn(self, event: int, count: int) -> None:
        """Note that ``event`` is at ``count``; later events move by the same difference."""
        more = count - int(self._counts[event])
        if more > 0:
            first = int(np.searchsorted(self._counts, self._counts[event], side="left"))
            self._counts[first:] += more

    def happened(self, now: Place) -> int:
        """Return how many events lie before ``now``."""
        first = int(np.searchsorted(self._counts, now.count, side="left"))
        last = int(np.searchsorted(self._counts, now.count, side="right"))
        if now.pc is None:
            return first
        # An instruction that faults does not count.  Its handler begins at the same count.
        here = [unsigned(int(pc)) == now.pc for pc in self.events["pc"][first:last]]
        return first + here.index(True) if True in here else last

    def process(self, event: int) -> Process | None:
        """Return the process that owns the address space loaded before ``event``.

        None if it is not known.  A recorded guest has one hart.
        """
        before = int(np.searchsorted(self._loads, event, side="left"))
        last = self.events[self._loads[before - 1]] if before else None
        return None if last is None else self.processes.get(int(last["c"]))

    def select(self, kinds: Sequence[Kind], subs: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Return the numbers of the events of these kinds that the guest's own instructions made.

        :param subs: only those with one of these in ``sub``.
        """
        events: Any = self.events
        wanted = np.isin(events["kind"], [int(kind) for kind in kinds])
        at_stop = events["flags"] & FLAG_STOP != 0
        further = (events["kind"] == int(Kind.PTE_WRITE)) & (events["flags"] & FLAG_CONT != 0)
        wanted &= ~at_stop & ~further
        if subs is not None:
            wanted &= np.isin(events["sub"], subs)
        return np.flatnonzero(wanted)


def following(numbers: NDArray[np.int64], first: int) -> int | None:
    """Return the first of the rising ``numbers`` that is not below ``first``; None without one."""
    at = int(np.searchsorted(numbers, first, side="left"))
    return int(numbers[at]) if at < len(numbers) else None
