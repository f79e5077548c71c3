"""``native``: no hypervisor, one-stage walk.  The floor.

No exits.  A TLB miss walks the guest's own tables; with Svadu the walk sets A and D.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from hypervisor_model.exits import Exit
from hypervisor_model.jit import inlined, kernel
from hypervisor_model.memory import GuestMemory, Ram, apply
from hypervisor_model.mmu import translate1
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies.event_fields import Event, event_at
from hypervisor_model.policies.hart import (
    Hardware,
    access_flags,
    cache_of,
    count_refs,
    drop_fenced,
    envcfg_written,
    is_untranslated,
    misses,
    tlb_of,
)
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import NoOptions
from hypervisor_model.policies.policy import ANSWER, MISSES, Colour, Policy, Stream, register
from hypervisor_model.tlb import NO_GUEST
from hypervisor_model.walk import OK, PROBE, Request, untranslated

_FENCE = int(Kind.FENCE)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)
_ENVCFG_WRITE = int(Kind.ENVCFG_WRITE)
_ACCESS = int(Kind.ACCESS)
_NO_GUEST = NO_GUEST
_VIEW = 0
_ANSWER, _MISSES = ANSWER, MISSES


@register
class Native(Policy):
    """No hypervisor."""

    name: ClassVar[str] = "native"
    label: ClassVar[str] = "native (no hypervisor)"
    colour: ClassVar[Colour] = Colour("#4d4d48", "#676762")
    place: ClassVar[int] = 10
    kinds: ClassVar[tuple[Exit, ...]] = ()

    def __init__(self, machine: MachineModel, options: NoOptions, stream: Stream) -> None:
        super().__init__(machine, stream, harts.make(machine))
        self._guest = GuestMemory(machine.ram_base, machine.ram_size)

    def _consume(self, batch: EventBatch, start: int, answers: NDArray[np.int64]) -> int:
        # It takes no exits.
        return int(_run(self.hardware, self._guest.ram, batch, start, answers))


@kernel
def _run(
    hw: Hardware, guest: Ram, batch: EventBatch, start: int, answers: NDArray[np.int64]
) -> int:
    for i in range(start, batch.shape[0]):
        event = event_at(batch, i)
        kind = event.kind
        hart = event.hart
        if kind == _ACCESS:
            missed = misses(hw, hart)
            answers[_ANSWER, i] = _access(hw, guest, hart, event)
            answers[_MISSES, i] = misses(hw, hart) - missed
        elif kind in (_FENCE, _REMOTE_FENCE):
            drop_fenced(hw, event, _VIEW, _NO_GUEST)
        elif kind == _SATP_WRITE:
            hw.harts[hart].satp = event.b
        elif kind == _ENVCFG_WRITE:
            envcfg_written(hw, event)
        else:
            apply(guest, kind, event.a, event.c)
    return batch.shape[0]  # type: ignore[no-any-return]


@inlined
def _access(hw: Hardware, guest: Ram, hart: int, event: Event) -> int:
    priv = event.priv
    satp = hw.harts[hart].satp
    if is_untranslated(satp, priv):
        return untranslated(event.a, event.sub)
    stop = event.flags & FLAG_STOP
    flags = access_flags(hw, hart, event.flags) | (PROBE if stop else 0)
    walk = translate1(
        tlb_of(hw, hart),
        hw.no_cache if stop else cache_of(hw, hart, _VIEW),
        guest,
        satp,
        Request(event.a, event.sub, priv, flags),
        hw.no_trace,
    )
    if not stop:
        count_refs(hw.counts, walk)
    return walk.pa if walk.cause == OK else -1 - walk.cause
