"""``ssp``: Swift Shadow Paging; as ``lsp``, but a fence synchronises at once, in M-mode.

- FENCE, any form: exit ``fence_fast``.  With an address, the leaf for it is read from the guest's
  table and entered into the shadow, so that no fill follows; without, all that the fence covers is
  synchronised.  Address spaces that are not loaded are treated as in ``lsp``.
- SATP_WRITE: a buffer holds the ``root_buffer`` roots loaded last; one of these costs no exit
  (``root_hits``), another ``satp_write``.  Ours: so does one in the buffer that is not in step
  (a fence has marked it, or the hart loads it with another ASID than before, or for the first
  time), for who is to synchronise it must first get control.
- All else as in ``lsp`` with ``links=fill``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from hypervisor_model.events import Fence
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.jit import inner, record_of
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels
from hypervisor_model.policies.hart import (
    COUNTERS,
    VIEWS,
    Hardware,
    take_exit,
)
from hypervisor_model.policies.lsp import (
    SYNC_COUNTERS,
    is_covered,
    load_synchronised,
    pte_write,
    synchronise_once,
)
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import option
from hypervisor_model.policies.policy import Colour, Stream, register
from hypervisor_model.policies.shadow_access import hardware_fence
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import (
    LINK_SYNC_ALL,
    UNREACHED,
    Pool,
    find_root,
)
from hypervisor_model.policies.synchronisation import behind, find_end, reaches, sync_entry

_FENCE_FAST = int(Exit.FENCE_FAST)
_SATP_WRITE = int(Exit.SATP_WRITE)
_ROOT_HITS = COUNTERS + int(Counter.ROOT_HITS)
_VA = int(Fence.VA)
_ASID = int(Fence.ASID)
_SYNC = 0

_BUFFER = record_of("evicted")


@dataclass(frozen=True)
class SspOptions:
    """Options of ``ssp``."""

    root_buffer: int = option(
        8,
        "roots in the buffer, replaced LRU",
    )


class BufferState(Protocol):
    """The buffer of roots."""

    evicted: int
    """When the root that left it last was last used.  Roots used later are in it."""


class SspState(NamedTuple):
    """State of ``ssp`` inside kernels."""

    root_buffer: int
    """The option."""
    buffer: BufferState


@register
class SwiftShadowPaging(ShadowPolicy):
    """Swift Shadow Paging."""

    name: ClassVar[str] = "ssp"
    label: ClassVar[str] = "swift shadow paging"
    colour: ClassVar[Colour] = Colour("#2d4400", "#c6e43a")
    place: ClassVar[int] = 80
    options: ClassVar[type[Any]] = SspOptions
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.FENCE_FAST,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (
        Counter.SINVAL,
        Counter.ROOT_HITS,
        *SYNC_COUNTERS,
        *SHADOW_COUNTERS,
    )

    def __init__(self, machine: MachineModel, options: SspOptions, stream: Stream) -> None:
        hardware = harts.make(machine)
        pool = shadow_tables.make(machine, hardware, link_rule=LINK_SYNC_ALL)
        own = SspState(options.root_buffer, np.zeros(1, _BUFFER)[0])
        super().__init__(machine, stream, hardware, pool, own)

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)


@inner
def fence_exit(p: Pool, own: SspState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    return _FENCE_FAST


@inner
def fence(
    hw: Hardware, p: Pool, own: SspState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    loaded = find_root(p, p.harts[hart].satp)
    spare_global = sub & _ASID
    for row in range(p.state.roots):
        here = row == loaded
        if not is_covered(p, hart, row, sub, asid):
            continue
        if sub & _VA and (here or sub & _ASID):
            _refresh(p, row, first, last, spare_global)
        elif here:
            synchronise_once(p, row, spare_global, _SYNC)
        else:
            p.root_asids[row, hart] = UNREACHED
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def _refresh(p: Pool, row: int, first: int, last: int, spare_global: int) -> None:
    """Bring the leaves for a range of addresses up to date, in every privilege view."""
    lowest = p.roots[row].level * VIEWS
    for role in range(lowest, lowest + VIEWS):
        root = p.shadow_of[p.roots[row].page, role]
        va = first
        while root:
            slot, index, is_global = find_end(p, root, va)
            if not (spare_global and is_global):
                sync_entry(p, slot, index)
            if reaches(p, slot, va, last):
                break
            va = behind(p, slot, va)


@inner
def satp_write(hw: Hardware, p: Pool, own: SspState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    row = find_root(p, satp)
    buffered = row >= 0 and _is_buffered(p, own, row)
    if load_synchronised(p, hart, satp, _SYNC) and buffered:
        hw.counts[_ROOT_HITS] += 1
    else:
        take_exit(hw, hart, _SATP_WRITE)
    _evict(p, own)


@inner
def _is_buffered(p: Pool, own: SspState, row: int) -> bool:
    return p.roots[row].used > own.buffer.evicted  # type: ignore[no-any-return]


@inner
def _evict(p: Pool, own: SspState) -> None:
    """Let the roots used longest ago leave the buffer until it holds no more than it can."""
    while True:
        held = 0
        oldest = p.state.clock
        for row in range(p.state.roots):
            if _is_buffered(p, own, row):
                held += 1
                oldest = min(oldest, p.roots[row].used)
        if held <= own.root_buffer:
            return
        own.buffer.evicted = oldest
