"""One event as kernels handle it: every field an int64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.isa import atp
from hypervisor_model.jit import inner

_wide: Any = np.int64
_FENCE = int(Kind.FENCE)


class Event(NamedTuple):
    """The fields of :data:`hypervisor_model.events.EVENT` that a policy looks at.

    ``b`` of a FENCE has only the bits that name an ASID (VMID).
    """

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
    """Return event ``i`` of a batch."""
    e = batch[i]
    kind, sub = _wide(e["kind"]), _wide(e["sub"])
    return Event(
        kind,
        sub,
        _wide(e["hart"]),
        _wide(e["priv"]),
        _wide(e["flags"]),
        e["a"],
        atp.fence_identifier(sub, e["b"]) if kind == _FENCE else e["b"],
        e["c"],
    )
