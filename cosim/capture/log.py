"""Collects the events of a source written in Python until a batch is taken."""

from __future__ import annotations

from operator import itemgetter

import numpy as np

from hypervisor_model.events import EVENT, SIZE_MORE, EventBatch

_MASK = (1 << 64) - 1
_NAMES = EVENT.names or ()
_UNSIGNED = np.dtype([(name, EVENT[name].str.replace("i", "u")) for name in _NAMES], align=True)
"""An event as the bits that it is collected with."""

_ADDED = (
    *("icount", "pc", "a", "b", "c", "kind", "sub", "hart", "priv", "flags", "size"),
    "nothing",
)
"""The order in which :meth:`EventLog.add` names the fields; what it does not name is 0."""
_in_order = itemgetter(*(_ADDED.index(name if name in _ADDED else "nothing") for name in _NAMES))
Record = tuple[int, ...]
"""The fields of one event in order, each unsigned."""


def records(batch: EventBatch) -> list[Record]:
    """Return the events of ``batch`` as an :class:`EventLog` holds them."""
    unsigned: list[Record] = batch.view(_UNSIGNED).tolist()
    return unsigned


class EventLog:
    """Events in order.

    Set ``pc``, ``priv`` and ``hart`` once for each stop: each event that is added gets them.  A gdb
    stub shows no instruction count, so ``icount`` is always -1.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self.pc = 0
        self.priv = 0
        self.hart = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(
        self, kind: int, a: int, b: int = 0, c: int = 0, *, sub: int = 0, flags: int = 0,
        size: int = 0, priv: int | None = None,
    ) -> None:  # fmt: skip
        """Append one event (fields as in :mod:`hypervisor_model.events`; any 64-bit pattern, and
        any ``size``)."""
        values = (
            _MASK,
            self.pc & _MASK,
            a & _MASK,
            b & _MASK,
            c & _MASK,
            kind,
            sub,
            self.hart,
            self.priv if priv is None else priv,
            flags,
            min(size, SIZE_MORE),
            0,
        )
        self._records.append(_in_order(values))

    def since(self, length: int) -> list[Record]:
        """Return the events that were added after the log had ``length`` of them."""
        return self._records[length:]

    def take(self) -> EventBatch:
        """Return the events collected so far as a batch, and empty the log."""
        batch: EventBatch = np.array(self._records, dtype=_UNSIGNED).view(EVENT)
        self._records.clear()
        return batch
