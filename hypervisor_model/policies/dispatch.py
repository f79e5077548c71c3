"""The loop over a batch of every policy with shadow tables, made from the kernels of its class.

A policy brings :class:`Kernels`; :func:`loop` compiles one loop around them.  Everything else in a
batch is the same for all of these policies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import FLAG_STOP, EventBatch, Kind
from hypervisor_model.jit import with_globals
from hypervisor_model.policies.event_fields import Event, event_at, fence_of
from hypervisor_model.policies.hart import (
    TAKEN,
    Hardware,
    misses,
    take_fence_exit,
    take_remote_fence_exit,
)
from hypervisor_model.policies.policy import ANSWER, EXITS, MISSES
from hypervisor_model.policies.shadow_access import other_event
from hypervisor_model.policies.shadow_tables import Pool, has_room
from hypervisor_model.policies.synchronisation import load_filled

_PTE_WRITE = int(Kind.PTE_WRITE)
_FENCE = int(Kind.FENCE)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)
_TAKEN, _ANSWER, _EXITS, _MISSES = TAKEN, ANSWER, EXITS, MISSES

_Event = Callable[[Hardware, Pool, Any, Event], None]
_FenceExit = Callable[[Pool, Any, int], int]
_Fence = Callable[[Hardware, Pool, Any, int, int, int, int, int], None]
_Satp = Callable[[Hardware, Pool, Any, int, int], None]


class Kernels(NamedTuple):
    """What a policy does at the events that set the policies apart.

    Each kernel takes the pool and the policy's own state: the NamedTuple that its class gives to
    :class:`~hypervisor_model.policies.shadow_policy.ShadowPolicy`.  All but ``fence_exit`` take the
    hardware, too.
    """

    pte_write: _Event
    """A store to a live table."""
    fence_exit: _FenceExit
    """The kind of exit of a fence, by the ``sub`` of its event."""
    fence: _Fence
    """What a fence does after its exit: the hart that executes it, ``sub`` of the event, the first
    and the last address that it covers, ASID.  A remote fence does it on each hart that it names,
    after one exit ``remote_fence``."""
    satp_write: _Satp
    """A write of ``satp``: hart, new value."""


class NoState(NamedTuple):
    """The state of a policy that needs none besides its pool."""


def loop(module: str, name: str, kernels: Kernels, *, protects: bool) -> Any:
    """Return the compiled loop of one policy.

    :param module: the policy's module.
    :param name: the policy's name.
    :param protects: True if the policy write-protects tables, so that it notices when one dies.
    """
    return with_globals(
        _loop,
        module,
        f"{name}_loop",
        _pte_write=kernels.pte_write,
        _fence_exit=kernels.fence_exit,
        _fence=kernels.fence,
        _satp_write=kernels.satp_write,
        _protects=protects,
    )


def _stand_in(*_arguments: object) -> None:
    """Stands in :func:`_loop` for a kernel of the policy."""


_pte_write: _Event = _stand_in
_fence_exit: _FenceExit = _stand_in  # type: ignore[assignment]
_fence: _Fence = _stand_in
_satp_write: _Satp = _stand_in
_protects = False


def _loop(
    hw: Hardware, p: Pool, own: Any, batch: EventBatch, start: int, answers: NDArray[np.int64]
) -> int:
    """Consume a batch from ``start`` on; the index of the event that lacks room in the pool."""
    before = hw.counts[_TAKEN]
    for i in range(start, batch.shape[0]):
        if not has_room(p):
            return i
        event = event_at(batch, i)
        if event.kind == _PTE_WRITE:
            _pte_write(hw, p, own, event)
        elif event.kind == _FENCE or event.kind == _REMOTE_FENCE:
            if event.kind == _FENCE:
                take_fence_exit(hw, event.hart, _fence_exit(p, own, event.sub), event.sub)
            else:
                take_remote_fence_exit(hw, event.hart)
            p.state.fences += 1
            asked = fence_of(event)
            for hart in range(hw.harts.shape[0]):
                if asked.harts >> hart & 1:
                    _fence(hw, p, own, hart, asked.sub, asked.first, asked.last, event.b)
        elif event.kind == _SATP_WRITE:
            if event.flags & FLAG_STOP:
                # What the register holds where the stream begins: nobody wrote it.
                load_filled(p, event.hart, event.b)
            else:
                _satp_write(hw, p, own, event.hart, event.b)
        else:
            missed = misses(hw, event.hart)
            answers[_ANSWER, i] = other_event(hw, p, event, _protects)
            answers[_MISSES, i] = misses(hw, event.hart) - missed
        if hw.counts[_TAKEN] != before:
            answers[_EXITS, i] = hw.counts[_TAKEN] - before
            before = hw.counts[_TAKEN]
    return batch.shape[0]  # type: ignore[no-any-return]
