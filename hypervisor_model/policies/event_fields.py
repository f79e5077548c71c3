"""One event as kernels handle it: every field an int64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hypervisor_model.events import EventBatch, Fence, Kind
from hypervisor_model.isa import atp
from hypervisor_model.jit import inner

_wide: Any = np.int64
_FENCE = int(Kind.FENCE)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_VA = int(Fence.VA)
_TOP = (1 << 63) - 1


class Event(NamedTuple):
    """The fields of :data:`hypervisor_model.events.EVENT` that a policy looks at.

    ``b`` of a FENCE or REMOTE_FENCE has only the bits that name an ASID (VMID).
    """

    kind: int
    sub: int
    hart: int
    priv: int
    flags: int
    a: int
    b: int
    c: int
    harts: int


class Fenced(NamedTuple):
    """What a FENCE or REMOTE_FENCE asks for."""

    harts: int
    """The harts that execute it: bit n for hart n."""
    sub: int
    """Instruction and form."""
    first: int
    """Of a form with an address: the first one that it covers."""
    last: int
    """The last one.  A FENCE covers the page of one address."""


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
        atp.fence_identifier(sub, e["b"]) if kind in (_FENCE, _REMOTE_FENCE) else e["b"],
        e["c"],
        _wide(e["harts"]),
    )


@inner
def _room(va: int) -> int:
    """Return how many addresses of the same half lie above one."""
    return _TOP - va if va >= 0 else -1 - va


@inner
def fence_of(event: Event) -> Fenced:
    """Return what a FENCE or REMOTE_FENCE asks for.

    A remote fence of no bytes names no hart here, because it covers nothing.  One whose bytes wrap
    around the end of the addresses covers them all.
    """
    harts, sub, last = _wide(1) << event.hart, event.sub, event.a
    if event.kind == _REMOTE_FENCE:
        harts = event.harts
        if sub & _VA and event.c == 0:
            harts = _wide(0)
        elif sub & _VA and (event.c < 0 or _room(event.a) < event.c - 1):
            sub &= ~_VA
        elif sub & _VA:
            last = event.a + event.c - 1
    return Fenced(harts, sub, event.a, last)
