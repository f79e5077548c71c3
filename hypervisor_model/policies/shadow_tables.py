"""The pool of shadow pages: what a shadow table is made of, and which roots have one.

A shadow page stands for one guest table page at one level in one privilege view, and holds real
page-table entries, which the hardware walker walks: links name other shadow pages, leaves the
guest's own frames (guest-physical is host-physical: ours).  A guest table that several address
spaces use has one shadow, linked several times; it goes when the last link goes.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.exits import Counter
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import inner, record_of
from hypervisor_model.memory import Ram, holds, sparse
from hypervisor_model.policies.hart import COUNTERS, PAGING, VIEWS, Hardware
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.walk import usable_leaf

POOL_BASE = 1 << 50
"""Host-physical address of the pool; no guest's RAM reaches it."""
PAGE_BYTES = 4096

_LEVELS = 5
ROLES = _LEVELS * VIEWS
"""A role is level * VIEWS + view."""
USER_VIEW, SUPERVISOR_VIEW, SUM_VIEW = range(VIEWS)
_FIRST_VIEW = 0

UNREACHED = -1
"""In place of the ASID that a hart loaded a root with last: a fence of that hart covers the root
and did not reach it."""

_TABLE = record_of("shadows", "live", "unsynced", "written")
"""A guest page: how many shadow pages it has; 1 if it is a live table; 1 if its shadows may differ
from it (``unsync``, ``oos``); emulated writes since its last use."""

_SLOT = record_of("owner", "role", "links", "is_root", "mark", "free", "to_give_up", "to_visit")
"""A shadow page: its guest page (-1: given up), its role, the links to it (and one more for a
root), 1 if it is a root, the mark of the last traversal.  The last three are lists of shadow pages,
not properties of one: those that are free, to be given up, to be traversed."""

_ROOT = record_of("page", "level", "used", "synchronised")
"""A root: its guest page, its level, the time of its last use, the number of the fence that its
address space was synchronised for last (0: none)."""

_STATE = record_of(
    "free",
    "high",
    "roots",
    "live",
    "clock",
    "mark",
    "store_trapped",
    "paging",
    "fences",
)

LINK_IN_SYNC, LINK_SYNC_ALL, LINK_RESYNC = range(3)
"""What linking an existing shadow page needs: nothing, synchronisation of all below it, or of the
pages below it that are out of sync."""

EMPTY = 0
"""An entry that holds nothing."""
WITHHELD = 1 << 8
"""Software bit of a shadow leaf: the guest grants W, but D is clear."""
_RSW = 3 << 8

_PAGES = COUNTERS + int(Counter.SHADOW_PAGES)
_PEAK = COUNTERS + int(Counter.SHADOW_PAGES_PEAK)
_MADE = COUNTERS + int(Counter.SHADOW_PAGES_MADE)

_MIN_PAGES = 64
_MIN_ROOTS = 16
_PER_EVENT = 16


class PoolState(Protocol):
    """What there is once in a pool."""

    free: int
    """Shadow pages on the list of free ones."""
    high: int
    """Shadow pages ever used; page 0 is never one."""
    roots: int
    live: int
    """Live tables of the guest."""
    clock: int
    mark: int
    """Of the running traversal."""
    store_trapped: int
    """1 if the store at hand has taken its exit."""
    paging: int
    """Paging features that leaves are filled for: those of the hart that switched one last."""
    fences: int
    """Fences of the guest so far.  A remote fence is one."""


class Pool(NamedTuple):
    """State inside kernels.  Guest pages are numbered from the start of RAM, shadow pages from
    the start of the pool."""

    guest: Ram
    """The guest's tables."""
    shadow: Ram
    """The shadow pages."""
    shadow_of: NDArray[np.int64]
    """(guest pages, ROLES): the shadow page of a guest page in a role; 0 = none."""
    tables: NDArray[Any]
    """By guest page; see :data:`_TABLE`."""
    slots: NDArray[Any]
    """By shadow page; see :data:`_SLOT`."""
    roots: NDArray[Any]
    """By row; see :data:`_ROOT`."""
    root_asids: NDArray[np.int64]
    """(rows, harts): the ASID that a hart loaded a root with last, or UNREACHED.  Fences are a
    hart's own, and so is what it may still hold."""
    state: PoolState
    harts: NDArray[Any]
    """Those of the Hardware."""
    counts: NDArray[np.int64]
    """Those of the Hardware."""
    flags: int
    """Flags of the guest's own walk, without those of ``PAGING``."""
    by_view: int
    """1: one shadow for each privilege view (set-up ``base``, and ``vtlb``)."""
    use_asid: int
    shared: int
    """1: a guest table has one shadow; 0: one for each place it is linked at (``vtlb``)."""
    whole: int
    """1: tables are shadowed whole, as soon as they are linked."""
    link_rule: int
    keep_links: int
    """1: a fill changes no link that is there (``lsp:links=fence``)."""
    prefetch: int
    """Entries of the aligned window that a fill brings in, 1 = only its own."""


def make(
    machine: MachineModel,
    hardware: Hardware,
    *,
    by_view: bool | None = None,
    use_asid: bool = True,
    shared: bool = True,
    whole: bool = False,
    link_rule: int = LINK_IN_SYNC,
    keep_links: bool = False,
    prefetch: int = 1,
) -> Pool:
    """Return an empty pool for a guest with the machine's RAM; see :class:`Pool` for the
    arguments."""
    state = np.zeros(1, _STATE)[0]
    state.high = 1
    state.paging = machine.walk_flags & PAGING
    pages = machine.ram_size // PAGE_BYTES
    return Pool(
        guest=Ram(sparse(machine.ram_size >> 3), machine.ram_base),
        shadow=Ram(np.zeros(_MIN_PAGES * pte.ENTRIES, np.int64), POOL_BASE),
        shadow_of=sparse(pages, ROLES),
        tables=sparse(pages, _TABLE.itemsize // 8).view(_TABLE).reshape(pages),
        slots=np.zeros(_MIN_PAGES, _SLOT),
        roots=np.zeros(_MIN_ROOTS, _ROOT),
        root_asids=np.zeros((_MIN_ROOTS, machine.harts), np.int64),
        state=state,
        harts=hardware.harts,
        counts=hardware.counts,
        flags=machine.walk_flags & ~PAGING,
        by_view=int(machine.setup == "base" if by_view is None else by_view),
        use_asid=int(use_asid),
        shared=int(shared),
        whole=int(whole),
        link_rule=link_rule,
        keep_links=int(keep_links),
        prefetch=prefetch,
    )


def grow(p: Pool) -> Pool:
    """Return the same state with at least twice the room for pages and roots."""
    count = len(p.slots) * 2
    while count < len(p.slots) + _wanted(p.state, p.whole):
        count *= 2
    # Only pages in use are copied: the untouched rest of either array costs no memory.
    used = p.state.high * pte.ENTRIES
    words = np.zeros(count * pte.ENTRIES, np.int64)
    words[:used] = p.shadow.words[:used]
    return p._replace(
        shadow=Ram(words, POOL_BASE),
        slots=_longer(p.slots, count),
        roots=_longer(p.roots, len(p.roots) * 2),
        root_asids=_longer(p.root_asids, len(p.roots) * 2),
    )


def _longer(array: NDArray[Any], count: int) -> NDArray[Any]:
    longer = np.zeros((count, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _wanted(state: PoolState, whole: int) -> int:
    """Pages that one event may need."""
    return _PER_EVENT + (state.live + 1) * ROLES * whole


@inner
def has_room(p: Pool) -> bool:
    """Return True if the next event cannot run out of shadow pages or roots."""
    left = p.slots.shape[0] - p.state.high + p.state.free
    wanted = _PER_EVENT + (p.state.live + 1) * ROLES * p.whole
    return left >= wanted and p.state.roots < p.roots.shape[0]  # type: ignore[no-any-return]


@inner
def page_of(p: Pool, pa: int) -> int:
    """Number of the guest page that ``pa`` lies in; -1 outside RAM."""
    return (pa - p.guest.base) >> 12 if holds(p.guest, pa) else -1


@inner
def entry_at(p: Pool, slot: int, index: int) -> int:
    """Return a shadow entry."""
    return p.shadow.words[slot * pte.ENTRIES + index]  # type: ignore[no-any-return]


@inner
def child_of(entry: int) -> int:
    """Return the shadow page that an entry links to; 0 for a leaf and for nothing."""
    if entry == 0 or pte.is_leaf(entry):
        return 0
    return (pte.target(entry) - POOL_BASE) >> 12


@inner
def new_page(p: Pool, page: int, role: int) -> int:
    """Return an empty shadow page, with no link to it yet; registered if shadows are shared.

    :raises RuntimeError: when the pool is full, which ``grow`` prevents before each event.
    """
    if p.state.free:
        p.state.free -= 1
        slot = p.slots[p.state.free].free
    else:
        slot = p.state.high
        if slot >= p.slots.shape[0]:
            raise RuntimeError("one event links more tables than the stream has said are live")
        p.state.high += 1
    p.slots[slot].owner = page
    p.slots[slot].role = role
    p.slots[slot].links = 0
    p.slots[slot].is_root = 0
    p.counts[_MADE] += 1
    p.counts[_PAGES] += 1
    p.counts[_PEAK] = max(p.counts[_PEAK], p.counts[_PAGES])
    if p.shared:
        _register(p, slot)
    return slot  # type: ignore[no-any-return]


@inner
def _register(p: Pool, slot: int) -> None:
    page = p.slots[slot].owner
    p.shadow_of[page, p.slots[slot].role] = slot
    p.tables[page].shadows += 1


@inner
def give_up(p: Pool, slot: int) -> None:
    """Empty a shadow page and forget it; what only it linked to goes too.

    A page that others still link to stays, empty and without an owner, until they are gone.
    """
    p.slots[0].to_give_up = slot
    depth = 1
    while depth:
        depth -= 1
        x = p.slots[depth].to_give_up
        if p.slots[x].owner >= 0:
            _disown(p, x)
            for at in range(x * pte.ENTRIES, (x + 1) * pte.ENTRIES):
                entry = p.shadow.words[at]
                if entry == 0:
                    continue
                p.shadow.words[at] = 0
                child = child_of(entry)
                if child:
                    p.slots[child].links -= 1
                    if p.slots[child].links == 0:
                        p.slots[depth].to_give_up = child
                        depth += 1
        if p.slots[x].links == 0:
            p.slots[p.state.free].free = x
            p.state.free += 1


@inner
def _disown(p: Pool, slot: int) -> None:
    page = p.slots[slot]
    guest = page.owner
    role = page.role
    p.counts[_PAGES] -= 1
    page.owner = -1
    if p.shadow_of[guest, role] == slot:
        p.shadow_of[guest, role] = 0
        table = p.tables[guest]
        table.shadows -= 1
        if table.shadows == 0:
            table.unsynced = 0
            table.written = 0
    if page.is_root:
        page.is_root = 0
        page.links -= 1


@inner
def _unlink(p: Pool, child: int) -> None:
    p.slots[child].links -= 1
    if p.slots[child].links == 0:
        give_up(p, child)


@inner
def put(p: Pool, slot: int, index: int, entry: int) -> None:
    """Replace an entry by a leaf, or by nothing (EMPTY); a page that only it linked to goes."""
    at = slot * pte.ENTRIES + index
    child = child_of(p.shadow.words[at])
    p.shadow.words[at] = entry
    if child:
        _unlink(p, child)


@inner
def link(p: Pool, slot: int, index: int, child: int, guest_entry: int) -> None:
    """Replace an entry by the link to ``child`` that stands for ``guest_entry``."""
    p.slots[child].links += 1
    target = ((POOL_BASE >> 12) + child) << pte.PPN_SHIFT
    put(p, slot, index, target | pte.V | (guest_entry & pte.G))


@inner
def shadow_leaf(p: Pool, entry: int, level: int, view: int) -> int:
    """Return the shadow of a guest leaf in a view; 0 if there is nothing to map."""
    if not usable_leaf(entry, level, p.flags | p.state.paging):
        return 0
    entry &= ~_RSW
    if entry & (pte.W | pte.D) == pte.W:
        entry = (entry & ~pte.W) | WITHHELD
    if not p.by_view:
        return entry
    if view == USER_VIEW:
        return entry if entry & pte.U else 0
    if not entry & pte.U:
        return entry | pte.U
    # A supervisor never executes a user page, and reaches it with SUM only.
    return entry & ~pte.X if view == SUM_VIEW and entry & pte.R else 0


@inner
def asid_of(p: Pool, satp: int) -> int:
    """Return the ASID that the policy runs ``satp`` under."""
    return atp.asid(satp) if p.use_asid else 0


@inner
def find_root(p: Pool, satp: int) -> int:
    """Row of the root of ``satp`` in ``roots``, or -1."""
    page = page_of(p, atp.root(satp))
    level = atp.levels(atp.mode(satp)) - 1
    for row in range(p.state.roots):
        if p.roots[row].page == page and p.roots[row].level == level:
            return row
    return -1


@inner
def root_slot(p: Pool, satp: int, view: int) -> int:
    """Return the shadow page of the root of ``satp`` in a view, 0 if there is none."""
    page = page_of(p, atp.root(satp))
    levels = atp.levels(atp.mode(satp))
    if page < 0 or levels == 0:
        return 0
    return p.shadow_of[page, (levels - 1) * VIEWS + view]  # type: ignore[no-any-return]


@inner
def make_root(p: Pool, satp: int, view: int) -> int:
    """Return the shadow page of the root of ``satp`` (not Bare) in a view, new if need be."""
    slot = root_slot(p, satp, view)
    if slot == 0:
        role = (atp.levels(atp.mode(satp)) - 1) * VIEWS + view
        slot = new_page(p, page_of(p, atp.root(satp)), role)
        if not p.shared:
            _register(p, slot)
    if not p.slots[slot].is_root:
        p.slots[slot].is_root = 1
        p.slots[slot].links += 1
    return slot


@inner
def _is_loaded(p: Pool, row: int) -> bool:
    for hart in range(p.harts.shape[0]):
        satp = p.harts[hart].satp
        if (
            page_of(p, atp.root(satp)) == p.roots[row].page
            and atp.levels(atp.mode(satp)) - 1 == p.roots[row].level
        ):
            return True
    return False


@inner
def load_root(p: Pool, hart: int, satp: int) -> tuple[int, bool]:
    """Write ``satp``.

    :return: its row in ``roots`` (a new one if it is not known), -1 for Bare; and True if all
        fences since the hart ran it last, with the same ASID, have reached it.

    The root's page in the first view is made at once, so that the table counts as shadowed.
    """
    p.harts[hart].satp = satp
    page = page_of(p, atp.root(satp))
    if atp.mode(satp) == 0 or page < 0:
        return -1, True
    row = find_root(p, satp)
    if row < 0:
        row = p.state.roots
        p.state.roots += 1
        p.roots[row].page = page
        p.roots[row].synchronised = 0
        p.roots[row].level = atp.levels(atp.mode(satp)) - 1
        for other in range(p.root_asids.shape[1]):
            p.root_asids[row, other] = UNREACHED
    p.state.clock += 1
    p.roots[row].used = p.state.clock
    make_root(p, satp, _FIRST_VIEW)
    in_step = p.root_asids[row, hart] == asid_of(p, satp)
    p.root_asids[row, hart] = asid_of(p, satp)
    return row, in_step


@inner
def forget_root(p: Pool, row: int) -> None:
    """Drop a row of ``roots`` and its shadow."""
    page = p.roots[row].page
    level = p.roots[row].level
    p.state.roots -= 1
    last = p.roots[p.state.roots]
    p.roots[row].page = last.page
    p.roots[row].level = last.level
    p.roots[row].used = last.used
    p.roots[row].synchronised = last.synchronised
    for hart in range(p.root_asids.shape[1]):
        p.root_asids[row, hart] = p.root_asids[p.state.roots, hart]
    for view in range(VIEWS):
        slot = p.shadow_of[page, level * VIEWS + view]
        if slot and p.slots[slot].is_root:
            p.slots[slot].is_root = 0
            _unlink(p, slot)


@inner
def forget_all_roots(p: Pool) -> None:
    """Drop every shadow root, loaded or not."""
    while p.state.roots:
        forget_root(p, p.state.roots - 1)


@inner
def retain(p: Pool, keep: int) -> None:
    """Forget the roots used longest ago until at most ``keep`` are left; loaded ones stay, and
    ``keep`` -1 keeps all."""
    while keep >= 0 and p.state.roots > keep:
        oldest = -1
        for row in range(p.state.roots):
            if not _is_loaded(p, row) and (oldest < 0 or p.roots[row].used < p.roots[oldest].used):
                oldest = row
        if oldest < 0:
            return
        forget_root(p, oldest)


@inner
def give_up_page(p: Pool, page: int) -> None:
    """Give up every shadow of a guest page."""
    for role in range(ROLES):
        slot = p.shadow_of[page, role]
        if slot:
            give_up(p, slot)
