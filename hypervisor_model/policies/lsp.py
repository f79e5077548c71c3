"""``lsp``: lazy shadow paging; guest tables are not write-protected, fences drive everything.

- PTE_WRITE: no exit; the hypervisor learns nothing.
- FENCE with an address: exit ``fence_fast`` (``fence`` without the fast path).  The shadow leaf
  for the address is invalidated in the address spaces that the fence names; nothing is read from
  the guest.  The next access costs one ``shadow_fill``, however many stores came before.
- FENCE without: exit ``fence_global``.  Every shadow page that the fence covers is synchronised
  with the guest's tables (``sync_reads``, ``sync_changes``); changed links take effect here.
- An entry that becomes valid needs no fence: the missing shadow entry faults and is filled.
- SATP_WRITE: exit ``satp_write``, as in ``shadow``.

*Address spaces that are not loaded.*  A fence with an ASID and an address reaches their leaf by
ASID.  Any other fence that covers them marks them for its hart.  When that hart loads a marked one,
it is synchronised.  The same happens if the hart loads one with another ASID than before, or for
the first time: what other harts may still hold is not legal there.

*Links.*  By the definition a changed link takes effect at a fence without address only.  But a miss
is filled if the guest's own walk allows the access, and that walk leads through the links as
they are now.  The two meet when an access that the shadow denies leads through a link that has
changed since without such a fence; ``links`` says which wins.  Both are legal: hardware may hold
a non-leaf entry until that fence, and need not.  (Filling from the table that the link named
before is no third choice: nothing tells what a page holds that is no table any more, and the guest
would fault on what only the new table maps.)

Linking a table that has a shadow already synchronises all below it: fences that named its new
place have not reached it.

A table that dies is noticed only if it is a root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from hypervisor_model.events import Fence
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa import pte
from hypervisor_model.jit import inner
from hypervisor_model.memory import apply
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.hart import (
    VIEWS,
    Hardware,
    take_exit,
)
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import KEEP_ALL, ROOTS_DOC, Roots, option
from hypervisor_model.policies.policy import Colour, Stream, register
from hypervisor_model.policies.shadow_access import hardware_fence
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import (
    EMPTY,
    LINK_SYNC_ALL,
    UNREACHED,
    Pool,
    entry_at,
    find_root,
    load_root,
    put,
    retain,
)
from hypervisor_model.policies.synchronisation import (
    behind,
    find_end,
    reaches,
    sync_below,
)

SYNC_COUNTERS = (Counter.SYNC_READS, Counter.SYNC_CHANGES, Counter.SYNC_RUNS)

_FENCE = int(Exit.FENCE)
_FENCE_FAST = int(Exit.FENCE_FAST)
_FENCE_GLOBAL = int(Exit.FENCE_GLOBAL)
_SATP_WRITE = int(Exit.SATP_WRITE)
_VA = int(Fence.VA)
_ASID = int(Fence.ASID)
_ALL = 0


@dataclass(frozen=True)
class LspOptions:
    """Options of ``lsp``."""

    fast_path: bool = option(
        True,
        "handle fences with an address in M-mode (exit fence_fast, else fence)",
    )
    fence_global: Literal["sync", "drop"] = option(
        "sync",
        "what a fence without address does to the address spaces that it covers: "
        "synchronise their shadow (sync), or drop it, to be filled again (drop)",
    )
    links: Literal["fill", "fence"] = option(
        "fill",
        "when a changed link takes effect: at the first fill that meets it (fill), or at a "
        "fence without address (fence); until then the hypervisor makes each access for the "
        "guest, a shadow_fill each",
    )
    roots: Roots = option(KEEP_ALL, ROOTS_DOC)  # noqa: RUF009


class LspState(NamedTuple):
    """Options of ``lsp`` inside kernels."""

    roots: int
    fast_path: int
    drop: int
    """1: a fence without address drops the shadow instead of synchronising it."""


@register
class LazyShadowPaging(ShadowPolicy):
    """Lazy shadow paging."""

    name: ClassVar[str] = "lsp"
    label: ClassVar[str] = "lazy shadow paging"
    colour: ClassVar[Colour] = Colour("#2651b6", "#50aaf4")
    place: ClassVar[int] = 40
    options: ClassVar[type[Any]] = LspOptions
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.FENCE,
        Exit.FENCE_FAST,
        Exit.FENCE_GLOBAL,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (Counter.SINVAL, *SYNC_COUNTERS, *SHADOW_COUNTERS)

    def __init__(self, machine: MachineModel, options: LspOptions, stream: Stream) -> None:
        hardware = harts.make(machine)
        drop = options.fence_global == "drop"
        own = LspState(options.roots, int(options.fast_path), int(drop))
        pool = shadow_tables.make(
            machine,
            hardware,
            link_rule=LINK_SYNC_ALL,
            keep_links=options.links == "fence",
        )
        super().__init__(machine, stream, hardware, pool, own)
        self._keeps_links = options.links == "fence"

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)

    def _uncounted(self) -> dict[str, str]:
        uncounted = super()._uncounted()
        if self._keeps_links and self.stream.filter:
            # An access made for the guest leaves nothing that the next one to its page would hit.
            reason = "links=fence needs repeated accesses, which the access filter drops"
            uncounted |= {Exit.SHADOW_FILL.key: reason}
        return uncounted


@inner
def pte_write(hw: Hardware, p: Pool, own: tuple[Any, ...], event: Event) -> None:
    """Handle a store to a live table: the hypervisor does not see it."""
    apply(p.guest, event.kind, event.a, event.c)


@inner
def fence_exit(p: Pool, own: LspState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    if sub & _VA:
        return _FENCE_FAST if own.fast_path else _FENCE
    return _FENCE_GLOBAL


@inner
def fence(
    hw: Hardware, p: Pool, own: LspState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    loaded = find_root(p, p.harts[hart].satp)
    spare_global = sub & _ASID
    for row in range(p.state.roots):
        here = row == loaded
        if not is_covered(p, hart, row, sub, asid):
            continue
        if sub & _VA and (here or sub & _ASID):
            _invalidate(p, row, first, last, spare_global)
        elif here:
            synchronise_once(p, row, spare_global, own.drop)
        else:
            p.root_asids[row, hart] = UNREACHED
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def is_covered(p: Pool, hart: int, row: int, sub: int, asid: int) -> bool:
    """Return True if a fence concerns what its hart may hold of an address space."""
    return not sub & _ASID or p.root_asids[row, hart] == asid


@inner
def _invalidate(p: Pool, row: int, first: int, last: int, spare_global: int) -> None:
    """Invalidate the leaves for a range of addresses, in every privilege view."""
    lowest = p.roots[row].level * VIEWS
    for role in range(lowest, lowest + VIEWS):
        root = p.shadow_of[p.roots[row].page, role]
        va = first
        while root:
            slot, index, is_global = find_end(p, root, va)
            if pte.is_leaf(entry_at(p, slot, index)) and not (spare_global and is_global):
                put(p, slot, index, EMPTY)
            if reaches(p, slot, va, last):
                break
            va = behind(p, slot, va)


@inner
def synchronise(p: Pool, row: int, spare_global: int, drop: int) -> None:
    """Synchronise an address space with the guest's tables, or drop its shadow."""
    first = p.roots[row].level * VIEWS
    for role in range(first, first + VIEWS):
        root = p.shadow_of[p.roots[row].page, role]
        if root and drop:
            for index in range(pte.ENTRIES):
                put(p, root, index, EMPTY)
        elif root:
            sync_below(p, root, spare_global)


@inner
def synchronise_once(p: Pool, row: int, spare_global: int, drop: int) -> None:
    """As :func:`synchronise`, but once for all harts that a fence names."""
    if p.roots[row].synchronised != p.state.fences:
        p.roots[row].synchronised = p.state.fences
        synchronise(p, row, spare_global, drop)


@inner
def load_synchronised(p: Pool, hart: int, satp: int, drop: int) -> bool:
    """Write ``satp``; synchronise what fences of the hart have not reached.

    :return: True if there was nothing of that kind.
    """
    row, in_step = load_root(p, hart, satp)
    if not in_step:
        synchronise(p, row, _ALL, drop)
    return in_step


@inner
def satp_write(hw: Hardware, p: Pool, own: LspState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    take_exit(hw, hart, _SATP_WRITE)
    load_synchronised(p, hart, satp, own.drop)
    retain(p, own.roots)
