"""Where a source in Python collects its events until a batch is taken."""

from __future__ import annotations

import numpy as np

from hypervisor_model.events import EVENT, EventBatch
from hypervisor_model.jit import signed

_Record = tuple[int, int, int, int, int, int, int, int, int, int, int, int]


class EventLog:
    """Events in order.

    ``pc``, ``priv`` and ``hart`` are set once a stop and stamped on every event that is added
    until the next one.  A gdb stub shows no instruction count, so ``icount`` is always -1.
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
        """Append one event (fields as in :mod:`hypervisor_model.events`; any 64-bit pattern)."""
        self._records.append(
            (
                -1,
                signed(self.pc),
                signed(a),
                signed(b),
                signed(c),
                kind,
                sub,
                self.hart,
                self.priv if priv is None else priv,
                flags,
                size,
                0,
            )
        )

    def take(self) -> EventBatch:
        """The events collected so far, as a batch; the log is empty then."""
        batch: EventBatch = np.array(self._records, dtype=EVENT)
        self._records.clear()
        return batch
