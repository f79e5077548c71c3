"""What the next stops will bring, if the same run was already seen by another source.

Then the requests of a stop can be sent all at once, and there are fewer of them
(:mod:`cosim.capture.gdb.ahead`).  What is foretold saves time and nothing else: each event is made
from what the guest shows, and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cosim.capture.log import Record, records
from hypervisor_model.events import EVENT, EventBatch, Kind, PteOp

_NAMES = EVENT.names or ()
_PC, _A, _KIND, _SUB, _PRIV = (_NAMES.index(name) for name in ("pc", "a", "kind", "sub", "priv"))
_C = _NAMES.index("c")
_PIECE = 4096
_NOT_COMPARED = (Kind.ACCESS, Kind.PAGE_FAULT)


class Next(NamedTuple):
    """The event that comes next; words are unsigned."""

    kind: int
    pc: int
    a: int
    sub: int
    priv: int
    again: bool
    """True if the event behind it is in the same 8 bytes, or of a store that may begin there."""


class Foretold:
    """The events to come, as long as they come.

    :param stream: the events that interception will log, without accesses and page faults.
    """

    def __init__(self, stream: EventBatch) -> None:
        self._stream = stream
        self._at = 0
        self._piece: Sequence[Record] = ()
        self._first = 0
        self._next: Next | None = None
        self.lost = False
        """True from the first event on that was another than foretold."""

    def next(self) -> Next | None:
        """Return the next event; None at the end, or if what is foretold is not what comes."""
        if self._next is None and not self.lost:
            record = self._record(self._at)
            if record is not None:
                self._next = Next(
                    record[_KIND],
                    record[_PC],
                    record[_A],
                    record[_SUB],
                    record[_PRIV],
                    self._is_again(record),
                )
        return self._next

    def _is_again(self, record: Record) -> bool:
        behind = self._record(self._at + 1)
        if behind is None:
            return False
        # The first event of a vector store is of its lowest entry, which it may not write first.
        by_vector = behind[_KIND] == Kind.PTE_WRITE and behind[_SUB] == PteOp.VECTOR
        return by_vector or bool(behind[_A] >> 3 == record[_A] >> 3)

    def came(self, logged: Sequence[Record]) -> None:
        """Compare the events that a stop has brought, and go on behind them."""
        for record in logged:
            by_mmu = record[_KIND] == Kind.PTE_WRITE and record[_SUB] == PteOp.HARDWARE_AD
            if self.lost or by_mmu or record[_KIND] in _NOT_COMPARED:
                continue
            self._next = None
            self.lost = self._record(self._at) != _comparable(record)
            self._at += 1

    def _record(self, at: int) -> Record | None:
        """Return what must come at ``at``, as :func:`_comparable` shows it; None at the end."""
        if not self._first <= at < self._first + len(self._piece):
            if at >= len(self._stream):
                return None
            self._first = at
            piece = self._stream[at : at + _PIECE].copy()
            piece["icount"] = -1
            piece["c"][piece["kind"] == Kind.SATP_WRITE] = 0
            self._piece = records(piece)
        return self._piece[at - self._first]


def _comparable(record: Record) -> Record:
    """Return what a stream must have for ``record``, which has no instruction count (-1)."""
    if record[_KIND] == Kind.SATP_WRITE:
        # Which process owns an address space is no part of what the guest does.
        return (*record[:_C], 0, *record[_C + 1 :])
    return record
