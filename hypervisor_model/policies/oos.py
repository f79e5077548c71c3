"""``oos``: shadow paging with a few out-of-sync leaf tables, as Xen does.

As ``unsync``, with these differences:

- At most ``tables`` leaf tables are out of sync per hart; one more brings the oldest back into
  sync (``resyncs``), protected again.
- FENCE without an address and SATP_WRITE bring back all of the hart's, wherever they are linked;
  those of other harts are synchronised, but stay writable.
- The ``zero_writes``-th emulated store of zero in a row to one table gives up its shadow early
  (``unshadowed``): the guest is taking it apart.  A store of many entries is one.  No other flood
  detection, no prefetch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import Fence
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.jit import inner, record_of
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.hart import (
    COUNTERS,
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
)
from hypervisor_model.policies.synchronisation import mirror_entry, resync_page
from hypervisor_model.policies.unsync import RESYNC_COUNTERS, resync_addresses

_FENCE = int(Exit.FENCE)
_SATP_WRITE = int(Exit.SATP_WRITE)
_UNSHADOWED = COUNTERS + int(Counter.UNSHADOWED)
_VA = int(Fence.VA)

_ZEROES = record_of("page", "stores")
"""Of a hart: the page that zero was stored to last, and how often in a row."""


@dataclass(frozen=True)
class OosOptions:
    """Options of ``oos``."""

    tables: int = option(
        3,
        "leaf tables of each hart that may be out of sync at a time (Xen: 3)",
    )
    zero_writes: int = option(
        2,
        "emulated stores of zero in a row that give up a shadow (Xen: 2)",
    )
    roots: Roots = option(KEEP_ALL, ROOTS_DOC)  # noqa: RUF009


class OosState(NamedTuple):
    """State of ``oos`` inside kernels."""

    roots: int
    zero_writes: int
    """Both are options."""
    zeroes: NDArray[Any]
    """By hart; see :data:`_ZEROES`."""
    unsynced: NDArray[np.int64]
    """(harts, ``tables``): the pages that each hart has let go out of sync, oldest first (page + 1,
    0 = none)."""


@register
class OutOfSync(ShadowPolicy):
    """Shadow paging with a bounded number of out-of-sync leaf tables."""

    name: ClassVar[str] = "oos"
    label: ClassVar[str] = "out-of-sync shadow paging (Xen)"
    colour: ClassVar[Colour] = Colour("#af6fee", "#776cee")
    place: ClassVar[int] = 70
    options: ClassVar[type[Any]] = OosOptions
    protects: ClassVar[bool] = True
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.PT_WRITE,
        Exit.FENCE,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (Counter.SINVAL, *RESYNC_COUNTERS, *SHADOW_COUNTERS)

    def __init__(self, machine: MachineModel, options: OosOptions, stream: Stream) -> None:
        hardware = harts.make(machine)
        pool = shadow_tables.make(
            machine,
            hardware,
            link_rule=LINK_RESYNC,
        )
        own = OosState(
            options.roots,
            options.zero_writes,
            np.zeros(machine.harts, _ZEROES),
            np.zeros((machine.harts, options.tables), np.int64),
        )
        super().__init__(machine, stream, hardware, pool, own)

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)

    def _access_bound(self) -> Iterable[Exit | Counter]:
        return (Exit.PT_WRITE, *super()._access_bound())


@inner
def pte_write(hw: Hardware, p: Pool, own: OosState, event: Event) -> None:
    """Handle a store to a live table."""
    page = store(p, event)
    if page < 0 or p.tables[page].unsynced:
        return
    trapped = trap_store(hw, p, event)
    hart = event.hart
    if is_stored(event) and is_leaf_table(p, page):
        _let_go(p, own.unsynced[hart], page)
        return
    mirror_entry(p, page, index_of(event.a), event.c)
    if not trapped:
        return
    zeroes = own.zeroes[hart]
    if event.c != 0:
        zeroes.stores = 0
        return
    zeroes.stores = zeroes.stores + 1 if zeroes.page == page else 1
    zeroes.page = page
    if zeroes.stores >= own.zero_writes:
        zeroes.stores = 0
        give_up_page(p, page)
        hw.counts[_UNSHADOWED] += 1


@inner
def _let_go(p: Pool, tables: NDArray[np.int64], page: int) -> None:
    """Let a leaf table go out of sync; the oldest of the hart's tables makes room for it."""
    p.tables[page].unsynced = 1
    # Close the gaps of those that are in sync again, or have lost their shadow.
    kept = 0
    for i in range(tables.shape[0]):
        if tables[i] and p.tables[tables[i] - 1].unsynced and tables[i] - 1 != page:
            tables[kept] = tables[i]
            kept += 1
    if kept == tables.shape[0]:
        resync_page(p, tables[0] - 1)
        kept -= 1
        for i in range(kept):
            tables[i] = tables[i + 1]
    tables[kept] = page + 1
    for i in range(kept + 1, tables.shape[0]):
        tables[i] = 0


@inner
def _resync(p: Pool, own: OosState, hart: int) -> None:
    """Bring back all of a hart's tables; synchronise those of others, which stay writable."""
    for other in range(p.harts.shape[0]):
        tables = own.unsynced[other]
        for i in range(tables.shape[0]):
            page = tables[i] - 1
            if page >= 0 and p.tables[page].unsynced:
                resync_page(p, page)
                p.tables[page].unsynced = other != hart
            if other == hart:
                tables[i] = 0


@inner
def fence_exit(p: Pool, own: OosState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    return _FENCE


@inner
def fence(
    hw: Hardware, p: Pool, own: OosState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    if sub & _VA:
        resync_addresses(p, p.harts[hart].satp, first, last)
    else:
        _resync(p, own, hart)
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def satp_write(hw: Hardware, p: Pool, own: OosState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    take_exit(hw, hart, _SATP_WRITE)
    _resync(p, own, hart)
    load_root(p, hart, satp)
    retain(p, own.roots)
