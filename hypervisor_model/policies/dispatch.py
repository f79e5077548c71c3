"""The one loop over a batch for all policies with shadow tables.

One loop and not one a policy, because compiling what they share takes most of the time.  A policy
is a number here; its kernels stand in its own file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from hypervisor_model.jit import inner, kernel
from hypervisor_model.policies import lsp, oos, shadow, ssp, unsync, vtlb
from hypervisor_model.policies.event import Event, event_at
from hypervisor_model.policies.hart import Hardware
from hypervisor_model.policies.shadow_policy import other_event
from hypervisor_model.policies.shadow_tables import Pool, has_room

POLICIES = ("shadow", "lsp", "vtlb", "unsync", "oos", "ssp")
"""Names by number."""

_SHADOW, _LSP, _VTLB, _UNSYNC, _OOS, _SSP = range(len(POLICIES))

_PTE_WRITE = int(Kind.PTE_WRITE)
_FENCE = int(Kind.FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)


@kernel
def run(
    hw: Hardware,
    p: Pool,
    policy: int,
    batch: EventBatch,
    start: int,
    answers: NDArray[np.int64],
) -> int:
    """Consume a batch from ``start`` on; the index of the event that lacks room in the pool."""
    protects = policy in (_SHADOW, _UNSYNC, _OOS)
    for i in range(start, batch.shape[0]):
        if not has_room(p):
            return i
        event = event_at(batch, i)
        if event.kind == _PTE_WRITE:
            _pte_write(hw, p, policy, event)
        elif event.kind == _FENCE:
            _fence(hw, p, policy, event.hart, event.sub, event.a, event.b)
        elif event.kind == _SATP_WRITE:
            if event.flags & FLAG_STOP:
                # What the register holds where the stream begins: nobody wrote it.
                shadow.load(p, event.hart, event.b)
            else:
                _satp_write(hw, p, policy, event.hart, event.b)
        else:
            answers[i] = other_event(hw, p, event, protects)
    return batch.shape[0]  # type: ignore[no-any-return]


@inner
def _pte_write(hw: Hardware, p: Pool, policy: int, event: Event) -> None:
    if policy == _SHADOW:
        shadow.pte_write(hw, p, event)
    elif policy == _UNSYNC:
        unsync.pte_write(hw, p, event)
    elif policy == _OOS:
        oos.pte_write(hw, p, event)
    else:
        lsp.pte_write(hw, p, event)


@inner
def _fence(hw: Hardware, p: Pool, policy: int, hart: int, sub: int, va: int, asid: int) -> None:
    if policy == _SHADOW:
        shadow.fence(hw, p, hart, sub, va, asid)
    elif policy == _LSP:
        lsp.fence(hw, p, hart, sub, va, asid)
    elif policy == _VTLB:
        vtlb.fence(hw, p, hart, sub, va, asid)
    elif policy == _UNSYNC:
        unsync.fence(hw, p, hart, sub, va, asid)
    elif policy == _OOS:
        oos.fence(hw, p, hart, sub, va, asid)
    else:
        ssp.fence(hw, p, hart, sub, va, asid)


@inner
def _satp_write(hw: Hardware, p: Pool, policy: int, hart: int, satp: int) -> None:
    if policy == _SHADOW:
        shadow.satp_write(hw, p, hart, satp)
    elif policy == _LSP:
        lsp.satp_write(hw, p, hart, satp)
    elif policy == _VTLB:
        vtlb.satp_write(hw, p, hart, satp)
    elif policy == _UNSYNC:
        unsync.satp_write(hw, p, hart, satp)
    elif policy == _OOS:
        oos.satp_write(hw, p, hart, satp)
    else:
        ssp.satp_write(hw, p, hart, satp)
