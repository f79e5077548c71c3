"""Collects the events of a source written in Python until a batch is taken."""

from __future__ import annotations

import numpy as np

from hypervisor_model.events import EVENT, SIZE_MORE, EventBatch

_Record = tuple[int, int, int, int, int, int, int, int, int, int, int, int]

_MASK = (1 << 64) - 1
_UNSIGNED = np.dtype(
    [(name, EVENT[name].str.replace("i", "u")) for name in EVENT.names or ()], align=True
)
"""An event whose fields are unsigned: events are collected as bit patterns."""


class EventLog:
    """Events in order.

    Set ``pc``, ``priv`` and ``hart`` once for each stop: each event that is added gets them.  A gdb
    stub shows no instruction count, so ``icount`` is always -1.
    """

    def __init__(self) -> None:
        self._records: list[_Record] = []
        self.pc = 0
        self.priv = 0
        self.hart = 0

    def __len__(self) -> int:
        return len(self._records)

    def add(
        self, kind: int, a: int, b: int = 0, c: int = 0, *, sub: int = 0, flags: int = 0,
        size: int = 0, priv: int | None = None,
    ) -> None:  # fmt: skip
        """Append one event.

        The fields are those of :mod:`hypervisor_model.events`: any 64-bit pattern, any ``size``.

        :param priv: the privilege of this event, if it is not that of the stop.
        """
        self._records.append(
            (
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
        )

    def take(self) -> EventBatch:
        """Return the events collected so far as a batch, and empty the log."""
        batch: EventBatch = np.array(self._records, dtype=_UNSIGNED).view(EVENT)
        self._records.clear()
        return batch
