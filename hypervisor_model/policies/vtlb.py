"""``vtlb``: a virtual TLB, as RVirt has: shadow tables that are caches, not mirrors.

- No write protection; three roots, one for each privilege view (user, supervisor, supervisor with
  SUM), in either set-up.  ASIDs are ignored; nothing is shared between address spaces.
- SATP_WRITE: exit ``satp_write``; all shadow tables are wiped, the TLB is flushed.
- FENCE with an address: exit ``fence``; the leaf is cleared.  Without: exit ``fence``, and all is
  wiped, whatever ASID it names.
- ACCESS without a usable shadow entry: ``shadow_fill``, ``dirty_fill`` or ``guest_fault``.
"""

from __future__ import annotations

from typing import ClassVar

from hypervisor_model.events import Fence
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa import pte
from hypervisor_model.jit import inner
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels, NoState
from hypervisor_model.policies.hart import (
    VIEWS,
    Hardware,
    take_exit,
)
from hypervisor_model.policies.lsp import pte_write
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import NoOptions
from hypervisor_model.policies.policy import Colour, Stream, register
from hypervisor_model.policies.shadow_access import hardware_fence
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import (
    EMPTY,
    Pool,
    entry_at,
    forget_all_roots,
    load_root,
    put,
)
from hypervisor_model.policies.synchronisation import behind, find_end, reaches

_FENCE = int(Exit.FENCE)
_SATP_WRITE = int(Exit.SATP_WRITE)
_VA = int(Fence.VA)
_FENCE_ALL = int(Fence.ALL)
_NO_ADDRESS = 0


@register
class VirtualTlb(ShadowPolicy):
    """A virtual TLB."""

    name: ClassVar[str] = "vtlb"
    label: ClassVar[str] = "virtual TLB (RVirt)"
    colour: ClassVar[Colour] = Colour("#895407", "#87760b")
    place: ClassVar[int] = 50
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.FENCE,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (Counter.SINVAL, *SHADOW_COUNTERS)

    def __init__(self, machine: MachineModel, options: NoOptions, stream: Stream) -> None:
        hardware = harts.make(machine)
        pool = shadow_tables.make(machine, hardware, by_view=True, use_asid=False, shared=False)
        super().__init__(machine, stream, hardware, pool)

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)


@inner
def fence_exit(p: Pool, own: NoState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    return _FENCE


@inner
def fence(
    hw: Hardware, p: Pool, own: NoState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    if sub & _VA:
        for row in range(p.state.roots):
            _clear(p, row, first, last)
    else:
        _wipe(p)
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def _clear(p: Pool, row: int, first: int, last: int) -> None:
    lowest = p.roots[row].level * VIEWS
    for role in range(lowest, lowest + VIEWS):
        root = p.shadow_of[p.roots[row].page, role]
        va = first
        while root:
            slot, index, _ = find_end(p, root, va)
            if pte.is_leaf(entry_at(p, slot, index)):
                put(p, slot, index, EMPTY)
            if reaches(p, slot, va, last):
                break
            va = behind(p, slot, va)


@inner
def _wipe(p: Pool) -> None:
    """Empty every shadow table; those that harts run start anew."""
    forget_all_roots(p)
    for hart in range(p.harts.shape[0]):
        load_root(p, hart, p.harts[hart].satp)


@inner
def satp_write(hw: Hardware, p: Pool, own: NoState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    take_exit(hw, hart, _SATP_WRITE)
    p.harts[hart].satp = satp
    _wipe(p)
    hardware_fence(hw, p, hart, _FENCE_ALL, _NO_ADDRESS, _NO_ADDRESS, _NO_ADDRESS)
