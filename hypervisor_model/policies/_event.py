"""One event as kernels handle it: every field an int64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hypervisor_model.events import EventBatch
from hypervisor_model.jit import inner

_wide: Any = np.int64


class Event(NamedTuple):
    """The fields of :data:`hypervisor_model.events.EVENT` that a policy looks at."""

    kind: int
    sub: int
    hart: int
    priv: int
    flags: int
    a: int
    b: int
    c: int


@inner
def event_at(batch: EventBatch, i: int) -> Event:
    """Event ``i`` of a batch."""
    e = batch[i]
    return Event(
        _wide(e["kind"]),
        _wide(e["sub"]),
        _wide(e["hart"]),
        _wide(e["priv"]),
        _wide(e["flags"]),
        e["a"],
        e["b"],
        e["c"],
    )
