"""The pool of shadow pages: what a shadow table is made of, and which roots have one.

A shadow page stands for one guest table page at one level in one privilege view, and holds real
page-table entries, which the hardware walker walks: links name other shadow pages, leaves the
guest's own frames (guest-physical is host-physical: ours).  A guest table that several address
spaces use has one shadow, linked several times; it goes when the last link goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.exits import Counter
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import inner
from hypervisor_model.memory import Ram, holds, sparse
from hypervisor_model.policies.hart import COUNTERS, SATP, VIEWS, Hardware
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

SHADOWS, LIVE, UNSYNCED, WRITTEN = range(ROLES, ROLES + 4)
"""Columns of ``guests`` after the roles: number of its shadow pages; whether it is a live table;
whether its shadows may differ from it (unsync, oos); emulated writes since its last use."""

OWNER, ROLE, REFS, IS_ROOT, MARKED, FREE, STACK, VISIT = range(8)
"""Columns of ``slots``: guest page (-1: given up), role, links to it (and one more for a root),
whether it is a root, mark of the last traversal.  The last three are lists of shadow pages, not
properties of one: free, to be given up, to be traversed."""

ROOT_PAGE, ROOT_LEVEL, ROOT_USED, ROOT_HARTS = range(4)
"""Columns of ``roots``: guest page, its level, time of last use; and from ROOT_HARTS on, by hart,
the ASID that the hart loaded it with last, or UNREACHED after a fence of that hart that covers it
and did not reach it.  Fences are a hart's own, and so is what it may still hold."""
UNREACHED = -1

N_FREE, N_HIGH, N_ROOTS, N_LIVE, CLOCK, MARK, STORE_TRAPPED = range(7)
"""Elements of ``scalars``: free pages on the list, pages ever used (page 0 is never one), roots,
live guest tables, time, mark of the running traversal, whether the store at hand trapped."""

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
_PER_EVENT = 16


class Pool(NamedTuple):
    """State inside kernels.  Guest pages are numbered from the start of RAM, shadow pages from
    the start of the pool."""

    guest: Ram
    """The guest's tables."""
    shadow: Ram
    """The shadow pages."""
    guests: NDArray[np.int64]
    """(guest pages, ROLES + 4): by role its shadow page (0 = none), then see SHADOWS."""
    slots: NDArray[np.int64]
    """(shadow pages, 8); see OWNER."""
    roots: NDArray[np.int64]
    scalars: NDArray[np.int64]
    harts: NDArray[np.int64]
    """Those of the Hardware."""
    counts: NDArray[np.int64]
    """Those of the Hardware."""
    flags: int
    """Flags of the guest's own walk."""
    by_view: int
    """1: one shadow a privilege view (set-up ``base``, and ``vtlb``)."""
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
    options: NDArray[np.int64]
    """The policy's options, in an order of its own."""
    local: NDArray[np.int64]
    """(harts, ...): the policy's own state."""


def make(
    machine: MachineModel,
    hardware: Hardware,
    *,
    options: Sequence[int] = (),
    local: int = 0,
    by_view: bool | None = None,
    use_asid: bool = True,
    shared: bool = True,
    whole: bool = False,
    link_rule: int = LINK_IN_SYNC,
    keep_links: bool = False,
    prefetch: int = 1,
) -> Pool:
    """An empty pool for a guest with the machine's RAM; see :class:`Pool` for the arguments
    (``local`` is the columns of that array)."""
    scalars = np.zeros(7, np.int64)
    scalars[N_HIGH] = 1
    return Pool(
        guest=Ram(sparse(machine.ram_size >> 3), machine.ram_base),
        shadow=Ram(np.zeros(_MIN_PAGES * pte.ENTRIES, np.int64), POOL_BASE),
        guests=sparse(machine.ram_size // PAGE_BYTES, ROLES + 4),
        slots=np.zeros((_MIN_PAGES, 8), np.int64),
        roots=np.zeros((16, ROOT_HARTS + machine.harts), np.int64),
        scalars=scalars,
        harts=hardware.harts,
        counts=hardware.counts,
        flags=machine.walk_flags,
        by_view=int(machine.setup == "base" if by_view is None else by_view),
        use_asid=int(use_asid),
        shared=int(shared),
        whole=int(whole),
        link_rule=link_rule,
        keep_links=int(keep_links),
        prefetch=prefetch,
        options=np.array(options, np.int64),
        local=np.zeros((machine.harts, local), np.int64),
    )


def grow(p: Pool) -> Pool:
    """The same state with at least twice the room for pages and roots."""
    count = len(p.slots) * 2
    while count < len(p.slots) + _wanted(p.scalars, p.whole):
        count *= 2
    # Only pages in use are copied: the untouched rest of either array costs no memory.
    used = int(p.scalars[N_HIGH]) * pte.ENTRIES
    words = np.zeros(count * pte.ENTRIES, np.int64)
    words[:used] = p.shadow.words[:used]
    slots = np.zeros((count, p.slots.shape[1]), np.int64)
    slots[: len(p.slots)] = p.slots
    roots = np.zeros((len(p.roots) * 2, p.roots.shape[1]), np.int64)
    roots[: len(p.roots)] = p.roots
    return p._replace(shadow=Ram(words, POOL_BASE), slots=slots, roots=roots)


def _wanted(scalars: NDArray[np.int64], whole: int) -> int:
    """Pages that one event may need."""
    return _PER_EVENT + (int(scalars[N_LIVE]) + 1) * ROLES * whole


@inner
def has_room(p: Pool) -> bool:
    """Whether the next event cannot run out of shadow pages or roots."""
    left = p.slots.shape[0] - p.scalars[N_HIGH] + p.scalars[N_FREE]
    wanted = _PER_EVENT + (p.scalars[N_LIVE] + 1) * ROLES * p.whole
    return left >= wanted and p.scalars[N_ROOTS] < p.roots.shape[0]  # type: ignore[no-any-return]


@inner
def page_of(p: Pool, pa: int) -> int:
    """Number of the guest page that ``pa`` lies in; -1 outside RAM."""
    return (pa - p.guest.base) >> 12 if holds(p.guest, pa) else -1


@inner
def entry_at(p: Pool, slot: int, index: int) -> int:
    """A shadow entry."""
    return p.shadow.words[slot * pte.ENTRIES + index]  # type: ignore[no-any-return]


@inner
def child_of(entry: int) -> int:
    """The shadow page that an entry links to; 0 for a leaf and for nothing."""
    if entry == 0 or pte.is_leaf(entry):
        return 0
    return (pte.target(entry) - POOL_BASE) >> 12


@inner
def new_page(p: Pool, page: int, role: int) -> int:
    """An empty shadow page, with no link to it yet; registered where shadows are shared."""
    if p.scalars[N_FREE]:
        p.scalars[N_FREE] -= 1
        slot = p.slots[p.scalars[N_FREE], FREE]
    else:
        slot = p.scalars[N_HIGH]
        if slot >= p.slots.shape[0]:
            raise RuntimeError("one event links more tables than the stream has said are live")
        p.scalars[N_HIGH] += 1
    p.slots[slot, OWNER] = page
    p.slots[slot, ROLE] = role
    p.slots[slot, REFS] = 0
    p.slots[slot, IS_ROOT] = 0
    p.counts[_MADE] += 1
    p.counts[_PAGES] += 1
    p.counts[_PEAK] = max(p.counts[_PEAK], p.counts[_PAGES])
    if p.shared:
        _register(p, slot)
    return slot  # type: ignore[no-any-return]


@inner
def _register(p: Pool, slot: int) -> None:
    guest = p.guests[p.slots[slot, OWNER]]
    guest[p.slots[slot, ROLE]] = slot
    guest[SHADOWS] += 1


@inner
def give_up(p: Pool, slot: int) -> None:
    """Empty a shadow page and forget it; what only it linked to goes too.

    A page that others still link to stays, empty and without an owner, until they are gone.
    """
    p.slots[0, STACK] = slot
    depth = 1
    while depth:
        depth -= 1
        x = p.slots[depth, STACK]
        state = p.slots[x]
        if state[OWNER] >= 0:
            _disown(p, x)
            for at in range(x * pte.ENTRIES, (x + 1) * pte.ENTRIES):
                entry = p.shadow.words[at]
                if entry == 0:
                    continue
                p.shadow.words[at] = 0
                child = child_of(entry)
                if child:
                    p.slots[child, REFS] -= 1
                    if p.slots[child, REFS] == 0:
                        p.slots[depth, STACK] = child
                        depth += 1
        if state[REFS] == 0:
            p.slots[p.scalars[N_FREE], FREE] = x
            p.scalars[N_FREE] += 1


@inner
def _disown(p: Pool, slot: int) -> None:
    state = p.slots[slot]
    guest = p.guests[state[OWNER]]
    p.counts[_PAGES] -= 1
    state[OWNER] = -1
    if guest[state[ROLE]] == slot:
        guest[state[ROLE]] = 0
        guest[SHADOWS] -= 1
        if guest[SHADOWS] == 0:
            guest[UNSYNCED] = 0
            guest[WRITTEN] = 0
    if state[IS_ROOT]:
        state[IS_ROOT] = 0
        state[REFS] -= 1


@inner
def _unlink(p: Pool, child: int) -> None:
    p.slots[child, REFS] -= 1
    if p.slots[child, REFS] == 0:
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
    p.slots[child, REFS] += 1
    target = ((POOL_BASE >> 12) + child) << pte.PPN_SHIFT
    put(p, slot, index, target | pte.V | (guest_entry & pte.G))


@inner
def shadow_leaf(p: Pool, entry: int, level: int, view: int) -> int:
    """The shadow of a guest leaf in a view; 0 where there is nothing to map."""
    if not usable_leaf(entry, level, p.flags):
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
    """The ASID that the policy runs ``satp`` under."""
    return atp.asid(satp) if p.use_asid else 0


@inner
def find_root(p: Pool, satp: int) -> int:
    """Row of the root of ``satp`` in ``roots``, or -1."""
    page = page_of(p, atp.root(satp))
    level = atp.levels(atp.mode(satp)) - 1
    for row in range(p.scalars[N_ROOTS]):
        if p.roots[row, ROOT_PAGE] == page and p.roots[row, ROOT_LEVEL] == level:
            return row
    return -1


@inner
def root_slot(p: Pool, satp: int, view: int) -> int:
    """The shadow page of the root of ``satp`` in a view, 0 if there is none."""
    page = page_of(p, atp.root(satp))
    levels = atp.levels(atp.mode(satp))
    if page < 0 or levels == 0:
        return 0
    return p.guests[page, (levels - 1) * VIEWS + view]  # type: ignore[no-any-return]


@inner
def make_root(p: Pool, satp: int, view: int) -> int:
    """The shadow page of the root of ``satp`` (in RAM, not Bare) in a view, new if need be."""
    slot = root_slot(p, satp, view)
    if slot == 0:
        role = (atp.levels(atp.mode(satp)) - 1) * VIEWS + view
        slot = new_page(p, page_of(p, atp.root(satp)), role)
        if not p.shared:
            _register(p, slot)
    if not p.slots[slot, IS_ROOT]:
        p.slots[slot, IS_ROOT] = 1
        p.slots[slot, REFS] += 1
    return slot


@inner
def _is_loaded(p: Pool, row: int) -> bool:
    for hart in range(p.harts.shape[0]):
        satp = p.harts[hart, SATP]
        if (
            page_of(p, atp.root(satp)) == p.roots[row, ROOT_PAGE]
            and atp.levels(atp.mode(satp)) - 1 == p.roots[row, ROOT_LEVEL]
        ):
            return True
    return False


@inner
def load_root(p: Pool, hart: int, satp: int) -> tuple[int, bool]:
    """Write ``satp``.  Its row in ``roots`` (a new one where it is not known), -1 for Bare; and
    whether all fences since the hart ran it last, with the same ASID, have reached it.

    The root's page in the first view is made at once, so that the table counts as shadowed.
    """
    p.harts[hart, SATP] = satp
    page = page_of(p, atp.root(satp))
    if atp.mode(satp) == 0 or page < 0:
        return -1, True
    row = find_root(p, satp)
    if row < 0:
        row = p.scalars[N_ROOTS]
        p.scalars[N_ROOTS] += 1
        p.roots[row, ROOT_PAGE] = page
        p.roots[row, ROOT_LEVEL] = atp.levels(atp.mode(satp)) - 1
        for column in range(ROOT_HARTS, p.roots.shape[1]):
            p.roots[row, column] = UNREACHED
    p.scalars[CLOCK] += 1
    p.roots[row, ROOT_USED] = p.scalars[CLOCK]
    make_root(p, satp, _FIRST_VIEW)
    in_step = p.roots[row, ROOT_HARTS + hart] == asid_of(p, satp)
    p.roots[row, ROOT_HARTS + hart] = asid_of(p, satp)
    return row, in_step


@inner
def forget_root(p: Pool, row: int) -> None:
    """Drop a row of ``roots`` and its shadow."""
    page = p.roots[row, ROOT_PAGE]
    level = p.roots[row, ROOT_LEVEL]
    p.scalars[N_ROOTS] -= 1
    for column in range(p.roots.shape[1]):
        p.roots[row, column] = p.roots[p.scalars[N_ROOTS], column]
    for view in range(VIEWS):
        slot = p.guests[page, level * VIEWS + view]
        if slot and p.slots[slot, IS_ROOT]:
            p.slots[slot, IS_ROOT] = 0
            _unlink(p, slot)


@inner
def forget_all_roots(p: Pool) -> None:
    """Drop every shadow root, loaded or not."""
    while p.scalars[N_ROOTS]:
        forget_root(p, p.scalars[N_ROOTS] - 1)


@inner
def retain(p: Pool, keep: int) -> None:
    """Forget the roots used longest ago until at most ``keep`` are left; loaded ones stay, and
    ``keep`` -1 keeps all."""
    while keep >= 0 and p.scalars[N_ROOTS] > keep:
        oldest = -1
        for row in range(p.scalars[N_ROOTS]):
            if not _is_loaded(p, row) and (
                oldest < 0 or p.roots[row, ROOT_USED] < p.roots[oldest, ROOT_USED]
            ):
                oldest = row
        if oldest < 0:
            return
        forget_root(p, oldest)


@inner
def give_up_page(p: Pool, page: int) -> None:
    """Give up every shadow of a guest page."""
    for role in range(ROLES):
        slot = p.guests[page, role]
        if slot:
            give_up(p, slot)
