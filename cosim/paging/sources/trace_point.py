"""The live tables of a trace, as they were just before one of its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cosim.errors import UnreadableMemory, UsageError
from cosim.paging.physical import PhysicalMemory
from cosim.paging.space import Registers
from cosim.trace.reader import TraceReader
from hypervisor_model.events import Envcfg, EventBatch, Kind, Satp, of_virtual_machines
from hypervisor_model.isa.pte import ENTRIES, PAGE
from hypervisor_model.jit import unsigned
from hypervisor_model.memory import GuestMemory
from hypervisor_model.policies.machine import MachineModel

_TABLE_KINDS = (Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.TABLE_DROP)


class TracePoint(PhysicalMemory):
    """Memory of which only the pages that are live tables are known.

    :param machine: the guest's machine.
    """

    def __init__(self, machine: MachineModel) -> None:
        self._memory = GuestMemory(machine.ram_base, machine.ram_size)
        self._is_table = np.zeros(machine.ram_size // PAGE, np.bool_)
        self._registers = [Registers() for _ in range(machine.harts)]
        self.events = 0
        """How many events were taken in."""

    @property
    def span(self) -> tuple[int, int]:
        """The first address of RAM, and its end."""
        return self._memory.base, self._memory.base + self._memory.size

    def registers(self, hart: int = 0) -> Registers:
        """Return what is known of a hart's registers.

        :raises UsageError: when the machine has no such hart.
        """
        if not 0 <= hart < len(self._registers):
            raise UsageError(f"the machine has no hart {hart}")
        return self._registers[hart]

    def feed(self, batch: EventBatch) -> None:
        """Take in events, in order."""
        self._memory.feed(batch)
        kind = batch["kind"]
        turned = batch[(kind == Kind.TABLE_ADD) | (kind == Kind.TABLE_DROP)]
        number = (turned["a"] - self._memory.base) >> 12
        inside = (number >= 0) & (number < len(self._is_table))
        # If a page is named more than once, NumPy keeps the last value.
        self._is_table[number[inside]] = turned["kind"][inside] == Kind.TABLE_ADD
        written = (kind == Kind.SATP_WRITE) | (kind == Kind.ENVCFG_WRITE)
        for event in batch[written & ~of_virtual_machines(batch)]:
            self._write(event)
        self.events += len(batch)

    def _write(self, event: np.void) -> None:
        hart, sub, new = int(event["hart"]), int(event["sub"]), unsigned(int(event["b"]))
        if hart >= len(self._registers):
            return
        if event["kind"] == Kind.SATP_WRITE and sub == Satp.SATP:
            self._registers[hart] = replace(self._registers[hart], satp=new)
        elif event["kind"] == Kind.ENVCFG_WRITE and sub == Envcfg.MENVCFG:
            self._registers[hart] = replace(self._registers[hart], menvcfg=new)

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes of a live table.

        :raises UnreadableMemory: when one of them is in no live table.
        """
        low, end = self.span
        first, last = (address - low) >> 12, (address + length - 1 - low) >> 12
        if address < low or address + length > end or not self._is_table[first : last + 1].all():
            raise UnreadableMemory(f"{address:#x} is not a live table at this event")
        raw = self._memory.words[(first * ENTRIES) : (last + 1) * ENTRIES].tobytes()
        return raw[address - low - first * PAGE :][:length]

    def tables(self, pages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the entries of table pages, and which of the pages are live tables."""
        number = (pages - self._memory.base) >> 12
        readable = (number >= 0) & (number < len(self._is_table))
        number = np.where(readable, number, 0)
        readable &= self._is_table[number]
        entries = self._memory.words.reshape(-1, ENTRIES)[number]
        entries[~readable] = 0
        return entries, readable


def at_event(trace: TraceReader, event: int | None) -> TracePoint:
    """Return the tables just before an event of a trace; behind the TABLE_* events there, if it is
    one.

    :param event: its number, from 0; None for the end of the trace.
    :raises UsageError: when the trace has no such event.
    :raises TraceDamage: when a part of the trace before it is damaged.
    """
    if event is not None and not 0 <= event <= trace.events:
        raise UsageError(
            f"event {event} is not in the trace; it has events 0 to {trace.events - 1}"
        )
    point = TracePoint(trace.origin.machine)
    for batch in until(trace.batches(), event):
        point.feed(batch)
    return point


def until(batches: Iterable[EventBatch], event: int | None) -> Iterable[EventBatch]:
    """Yield the events before number ``event``; all if it is None.

    TABLE_* events tell which tables the event before them made live, and no instruction lies
    between.  So those from number ``event`` on come along.
    """
    left = event
    for batch in batches:
        if left is None:
            yield batch
            continue
        cut = min(left, len(batch))
        left -= cut
        if not left:
            others = np.flatnonzero(~np.isin(batch["kind"][cut:], _TABLE_KINDS))
            cut = cut + int(others[0]) if len(others) else len(batch)
        yield batch[:cut]
        if cut < len(batch):
            return
