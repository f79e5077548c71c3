"""Keep shadow tables in step with the guest's: entry by entry, page by page, whole trees."""

from __future__ import annotations

from hypervisor_model.exits import Counter
from hypervisor_model.isa import pte
from hypervisor_model.jit import inner
from hypervisor_model.memory import load
from hypervisor_model.policies.hart import COUNTERS, VIEWS
from hypervisor_model.policies.shadow_tables import (
    EMPTY,
    LINK_RESYNC,
    PAGE_BYTES,
    ROLES,
    Pool,
    child_of,
    entry_at,
    link,
    load_root,
    make_root,
    new_page,
    page_of,
    put,
    shadow_leaf,
)

_ALL = 0
_SYNC_READS = COUNTERS + int(Counter.SYNC_READS)
_SYNC_CHANGES = COUNTERS + int(Counter.SYNC_CHANGES)
_SYNC_RUNS = COUNTERS + int(Counter.SYNC_RUNS)
_RESYNCS = COUNTERS + int(Counter.RESYNCS)


@inner
def guest_entry_of(p: Pool, slot: int, index: int) -> int:
    """Return the guest's entry that a shadow entry stands for."""
    return load(p.guest, p.guest.base + p.slots[slot].owner * PAGE_BYTES + index * 8)


@inner
def _is_same_link(p: Pool, entry: int, guest_entry: int) -> bool:
    """Return True if a shadow link leads to the shadow of the table that the guest's entry
    names."""
    child = child_of(entry)
    return (
        child != 0
        and pte.is_link(guest_entry)
        and p.slots[child].owner >= 0
        and p.slots[child].owner == page_of(p, pte.target(guest_entry))
    )


@inner
def _mirror(p: Pool, slot: int, index: int, guest_entry: int) -> int:
    """Make one shadow entry what the guest's entry says.

    A leaf is filled.  A link is made to a shadow that exists, or, with whole-table fill, to a new
    one, whose page is returned (else 0) to be filled in turn; otherwise it stays empty, to be
    filled on demand.
    """
    role = p.slots[slot].role
    entry = entry_at(p, slot, index)
    if role < VIEWS or not pte.is_link(guest_entry):
        leaf = shadow_leaf(p, guest_entry, role // VIEWS, role % VIEWS)
        if leaf != entry:
            put(p, slot, index, leaf)
        return 0
    if _is_same_link(p, entry, guest_entry):
        link(p, slot, index, child_of(entry), guest_entry)
        return 0
    page = page_of(p, pte.target(guest_entry))
    child = p.shadow_of[page, role - VIEWS] if page >= 0 else 0
    fresh = page >= 0 and child == 0 and p.whole
    if fresh:
        child = new_page(p, page, role - VIEWS)
    if child:
        link(p, slot, index, child, guest_entry)
        if p.link_rule == LINK_RESYNC:
            resync_below(p, child)
    elif entry:
        put(p, slot, index, EMPTY)
    return child if fresh else 0


@inner
def build(p: Pool, slot: int) -> None:
    """Fill a shadow page, and all below it that is new, from live guest tables."""
    p.slots[0].to_visit = slot
    depth = 1
    while depth:
        depth -= 1
        x = p.slots[depth].to_visit
        # A page that is not live yet is described by the events that follow.
        if not p.tables[p.slots[x].owner].live:
            continue
        for index in range(pte.ENTRIES):
            fresh = _mirror(p, x, index, guest_entry_of(p, x, index))
            if fresh:
                p.slots[depth].to_visit = fresh
                depth += 1


@inner
def mirror_entry(p: Pool, page: int, index: int, guest_entry: int) -> None:
    """Bring one entry of a guest page into every shadow of the page."""
    for role in range(ROLES):
        slot = p.shadow_of[page, role]
        if slot:
            fresh = _mirror(p, slot, index, guest_entry)
            if fresh:
                build(p, fresh)


@inner
def sync_entry(p: Pool, slot: int, index: int) -> None:
    """Synchronise one entry that is a leaf or empty, counted."""
    role = p.slots[slot].role
    p.counts[_SYNC_READS] += 1
    leaf = shadow_leaf(p, guest_entry_of(p, slot, index), role // VIEWS, role % VIEWS)
    if leaf != entry_at(p, slot, index):
        p.counts[_SYNC_CHANGES] += 1
        put(p, slot, index, leaf)


@inner
def sync_page(p: Pool, slot: int, spare_global: int) -> None:
    """Synchronise the entries that a shadow page has, counted; empty ones wait for a fill.

    A link that changed is emptied, not followed.
    """
    for index in range(pte.ENTRIES):
        entry = entry_at(p, slot, index)
        if entry == 0 or (spare_global and entry & pte.G):
            continue
        if child_of(entry) == 0:
            sync_entry(p, slot, index)
            continue
        p.counts[_SYNC_READS] += 1
        guest_entry = guest_entry_of(p, slot, index)
        if not _is_same_link(p, entry, guest_entry):
            p.counts[_SYNC_CHANGES] += 1
            put(p, slot, index, EMPTY)
        elif (entry ^ guest_entry) & pte.G:
            p.counts[_SYNC_CHANGES] += 1
            link(p, slot, index, child_of(entry), guest_entry)


@inner
def _begin(p: Pool, slot: int) -> None:
    p.state.mark += 1
    p.slots[slot].mark = p.state.mark
    p.slots[0].to_visit = slot


@inner
def _push_children(p: Pool, slot: int, depth: int) -> int:
    if p.slots[slot].role < VIEWS:
        return depth
    for index in range(pte.ENTRIES):
        child = child_of(entry_at(p, slot, index))
        if child and p.slots[child].mark != p.state.mark:
            p.slots[child].mark = p.state.mark
            p.slots[depth].to_visit = child
            depth += 1
    return depth


@inner
def sync_below(p: Pool, slot: int, spare_global: int) -> None:
    """Synchronise a shadow page and every one that can be reached from it."""
    reads = p.counts[_SYNC_READS]
    _begin(p, slot)
    depth = 1
    while depth:
        depth -= 1
        x = p.slots[depth].to_visit
        # Synchronising one page may have given up another.
        if p.slots[x].owner >= 0:
            sync_page(p, x, spare_global)
            depth = _push_children(p, x, depth)
    p.counts[_SYNC_RUNS] += p.counts[_SYNC_READS] != reads


@inner
def resync_below(p: Pool, slot: int) -> None:
    """Bring every out-of-sync page that can be reached from a shadow page back into sync."""
    _begin(p, slot)
    depth = 1
    while depth:
        depth -= 1
        x = p.slots[depth].to_visit
        if p.slots[x].owner >= 0:
            if p.tables[p.slots[x].owner].unsynced:
                resync_page(p, p.slots[x].owner)
            depth = _push_children(p, x, depth)


@inner
def resync_page(p: Pool, page: int) -> None:
    """Synchronise all shadows of a guest page; it is protected again."""
    p.tables[page].unsynced = 0
    p.counts[_RESYNCS] += 1
    for role in range(ROLES):
        slot = p.shadow_of[page, role]
        if slot:
            sync_page(p, slot, _ALL)


@inner
def find_end(p: Pool, slot: int, va: int) -> tuple[int, int, int]:
    """Find the entry that the shadow walk of ``va`` ends at; it is a leaf or empty.

    :param slot: the root page, not 0.
    :return: shadow page, index, and a number other than 0 if the mapping is global.
    """
    is_global = 0
    while True:
        index = (va >> pte.level_bits(p.slots[slot].role // VIEWS)) & (pte.ENTRIES - 1)
        entry = entry_at(p, slot, index)
        is_global |= entry & pte.G
        child = child_of(entry)
        if child == 0:
            return slot, index, is_global
        slot = child


@inner
def reaches(p: Pool, slot: int, va: int, last: int) -> bool:
    """Return True if the entry of a shadow page for ``va`` also translates ``last``."""
    return (va ^ last) >> pte.level_bits(p.slots[slot].role // VIEWS) == 0


@inner
def behind(p: Pool, slot: int, va: int) -> int:
    """Return the first address behind what the entry of a shadow page for ``va`` translates."""
    bits = pte.level_bits(p.slots[slot].role // VIEWS)
    return ((va >> bits) + 1) << bits


@inner
def load_filled(p: Pool, hart: int, satp: int) -> None:
    """Run a hart on the shadow of a root, which is filled if tables are to be shadowed whole."""
    row, _ = load_root(p, hart, satp)
    if row >= 0 and p.whole:
        for view in range(VIEWS if p.by_view else 1):
            build(p, make_root(p, satp, view))
