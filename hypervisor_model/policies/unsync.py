"""``unsync``: shadow paging that lets leaf tables go out of sync, as Linux KVM does on x86.

Every table with a shadow is write-protected at first.

- PTE_WRITE to a protected leaf table: exit ``pt_write``, and the table is *out of sync*: writable,
  its shadow stale, further stores are free.  To a protected table above: exit ``pt_write``, the
  store is emulated and the shadow synchronised; with the ``flood``-th such exit since a fill last
  passed through the table, its shadow is given up (``unshadowed``).  What no instruction stores
  to a protected table (DMA) is synchronised, without an exit, and lets nothing go out of sync.
- FENCE with an address: exit ``fence``; the entry for it is read again if its table is out of
  sync.  Without: exit ``fence``; all tables out of sync below the loaded root are synchronised and
  protected again (``resyncs``).
- SATP_WRITE: exit ``satp_write``; the same for the new root, so that no fence need reach a root
  that is not loaded.
- A ``shadow_fill`` brings in the aligned window of ``prefetch`` entries (``prefetched``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from hypervisor_model.events import Fence
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.jit import inner
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.hart import (
    COUNTERS,
    VIEWS,
    Hardware,
    take_exit,
)
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import KEEP_ALL, ROOTS_DOC, Roots, option
from hypervisor_model.policies.policy import Colour, Stream, register
from hypervisor_model.policies.shadow_access import (
    hardware_fence,
    index_of,
    is_leaf_table,
    is_stored,
    store,
    trap_store,
)
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import (
    LINK_RESYNC,
    Pool,
    give_up_page,
    load_root,
    retain,
    root_slot,
)
from hypervisor_model.policies.synchronisation import (
    behind,
    find_end,
    mirror_entry,
    reaches,
    resync_below,
    sync_entry,
)

RESYNC_COUNTERS = (
    Counter.SYNC_READS,
    Counter.SYNC_CHANGES,
    Counter.RESYNCS,
    Counter.UNSHADOWED,
)

_FENCE = int(Exit.FENCE)
_SATP_WRITE = int(Exit.SATP_WRITE)
_UNSHADOWED = COUNTERS + int(Counter.UNSHADOWED)
_VA = int(Fence.VA)


@dataclass(frozen=True)
class UnsyncOptions:
    """Options of ``unsync``."""

    flood: int = option(
        3,
        "emulated stores to a table, without a use between them, that give up its shadow (KVM: 3)",
    )
    prefetch: int = option(
        8,
        "entries of the aligned window that a fill brings in (KVM: 8)",
    )
    roots: Roots = option(KEEP_ALL, ROOTS_DOC)  # noqa: RUF009


class UnsyncState(NamedTuple):
    """Options of ``unsync`` inside kernels."""

    roots: int
    flood: int


@register
class Unsync(ShadowPolicy):
    """Shadow paging with out-of-sync leaf tables."""

    name: ClassVar[str] = "unsync"
    label: ClassVar[str] = "unsync shadow paging (KVM)"
    colour: ClassVar[Colour] = Colour("#571452", "#bc62a8")
    place: ClassVar[int] = 60
    options: ClassVar[type[Any]] = UnsyncOptions
    protects: ClassVar[bool] = True
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.PT_WRITE,
        Exit.FENCE,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (
        Counter.SINVAL,
        Counter.PREFETCHED,
        *RESYNC_COUNTERS,
        *SHADOW_COUNTERS,
    )

    def __init__(self, machine: MachineModel, options: UnsyncOptions, stream: Stream) -> None:
        hardware = harts.make(machine)
        pool = shadow_tables.make(
            machine,
            hardware,
            link_rule=LINK_RESYNC,
            prefetch=options.prefetch,
        )
        own = UnsyncState(options.roots, options.flood)
        super().__init__(machine, stream, hardware, pool, own)

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)

    def _access_bound(self) -> Iterable[Exit | Counter]:
        return (Exit.PT_WRITE, *super()._access_bound())


@inner
def pte_write(hw: Hardware, p: Pool, own: UnsyncState, event: Event) -> None:
    """Handle a store to a live table."""
    page = store(p, event)
    if page < 0 or p.tables[page].unsynced:
        return
    trapped = trap_store(hw, p, event)
    if is_stored(event) and is_leaf_table(p, page):
        p.tables[page].unsynced = 1
        return
    mirror_entry(p, page, index_of(event.a), event.c)
    if not trapped:
        return
    p.tables[page].written += 1
    if p.tables[page].written >= own.flood:
        give_up_page(p, page)
        hw.counts[_UNSHADOWED] += 1


@inner
def fence_exit(p: Pool, own: UnsyncState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    return _FENCE


@inner
def fence(
    hw: Hardware, p: Pool, own: UnsyncState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    if sub & _VA:
        resync_addresses(p, p.harts[hart].satp, first, last)
    else:
        resync_root(p, p.harts[hart].satp)
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def resync_addresses(p: Pool, satp: int, first: int, last: int) -> None:
    """Read the entries for a range of addresses again if their table is out of sync; that stays
    so."""
    for view in range(VIEWS):
        root = root_slot(p, satp, view)
        va = first
        while root:
            slot, index, _ = find_end(p, root, va)
            if p.tables[p.slots[slot].owner].unsynced:
                sync_entry(p, slot, index)
            if reaches(p, slot, va, last):
                break
            va = behind(p, slot, va)


@inner
def resync_root(p: Pool, satp: int) -> None:
    """Synchronise and protect all tables out of sync below a root."""
    for view in range(VIEWS):
        root = root_slot(p, satp, view)
        if root:
            resync_below(p, root)


@inner
def satp_write(hw: Hardware, p: Pool, own: UnsyncState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    take_exit(hw, hart, _SATP_WRITE)
    load_root(p, hart, satp)
    resync_root(p, satp)
    retain(p, own.roots)
