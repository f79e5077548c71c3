"""What accesses do in all policies with shadow tables, and the life of the guest's tables.

``shadow``, ``lsp`` and their neighbours differ in what they do at a table write, a fence and a
``satp`` write; this module has what they share.

*Pages* are those of :mod:`~hypervisor_model.policies.shadow_tables`.  Guest superpages stay
superpages.  (Ours, and a limit: a write-protected page inside of one does not break it up.
Protection is by page number, so the TLB reach that splitting costs is not seen.)

*Privilege views.*  In set-up ``h`` the guest's own U bit and SUM work in VS- and VU-mode, so there
is one view.  In set-up ``base`` all of the guest runs in U-mode, so there is one shadow for user,
one for supervisor, and one for supervisor with SUM.

*A and D.*  A shadow leaf exists only if the guest's A is set, and is writable only if its D is
set.  With Svadu the guest's walk sets them, as hardware would; with Svade a clear bit is the
guest's own fault.  A store is a ``dirty_fill`` if its view holds the page read-only only because
D was clear, and the hypervisor sets D for it.  Every view of the address space that holds the
page then has W, so each page has one such exit, not one per view.  A store whose view holds
nothing for the page is a ``shadow_fill``, which sets D on the way.  So is a store after the guest
has set D itself.

*A miss* walks the shadow table.  If it denies the access, the guest's tables are walked from
their root: if they deny it too, the exit is ``guest_fault``, else ``shadow_fill`` (or
``dirty_fill``), and the shadow gets what that walk met, links included.  Then the access starts
over: a second TLB miss, a second walk, as on hardware.

*Guest faults* are counted when they are first told: at a failing access, or at a PAGE_FAULT event
that is not the report of the access before it (same hart and cause, ``tval`` less than a page on).

*Untranslated* accesses (Bare, or M-mode) cost nothing.  They get the address itself, or an access
fault if it is above the physical address space.
"""

from __future__ import annotations

from hypervisor_model import tlb as tlbs
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    Fence,
    Kind,
    Priv,
    PteOp,
)
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import inlined, inner
from hypervisor_model.memory import apply, load
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.hart import (
    COUNTERS,
    GUEST_ID,
    VIEWS,
    Hardware,
    access_faulted,
    access_flags,
    cache_of,
    count_refs,
    envcfg_written,
    is_untranslated,
    page_fault,
    take_exit,
    tlb_of,
)
from hypervisor_model.policies.shadow_tables import (
    EMPTY,
    LINK_RESYNC,
    LINK_SYNC_ALL,
    POOL_BASE,
    ROLES,
    SUM_VIEW,
    SUPERVISOR_VIEW,
    USER_VIEW,
    WITHHELD,
    Pool,
    asid_of,
    child_of,
    entry_at,
    forget_root,
    give_up_page,
    link,
    make_root,
    new_page,
    page_of,
    put,
    root_slot,
    shadow_leaf,
)
from hypervisor_model.policies.synchronisation import (
    find_end,
    guest_entry_of,
    mirror_entry,
    resync_below,
    sync_below,
)
from hypervisor_model.walk import ADUE, OK, PROBE, Request, Walk, untranslated, walk1

_TABLE_ADD = int(Kind.TABLE_ADD)
_TABLE_ENTRY = int(Kind.TABLE_ENTRY)
_TABLE_DROP = int(Kind.TABLE_DROP)
_ACCESS = int(Kind.ACCESS)
_ENVCFG_WRITE = int(Kind.ENVCFG_WRITE)
_PAGE_FAULT = int(Kind.PAGE_FAULT)
_PT_WRITE = int(Exit.PT_WRITE)
_SHADOW_FILL = int(Exit.SHADOW_FILL)
_DIRTY_FILL = int(Exit.DIRTY_FILL)
_ALL = 0
_PREFETCHED = COUNTERS + int(Counter.PREFETCHED)
_WRITE = int(Access.WRITE)
_USER = int(Priv.U)
_FORM_ASID = int(Fence.ASID)
_OTHER = int(PteOp.OTHER)
_HARDWARE_AD = int(PteOp.HARDWARE_AD)
_AD = pte.A | pte.D


@inlined
def other_event(hw: Hardware, p: Pool, event: Event, seen: bool) -> int:
    """Handle every event but PTE_WRITE, FENCE and SATP_WRITE; return the answer to an access, or 0.

    :param seen: True if the policy protects tables, so that it notices when one dies.
    """
    kind = event.kind
    if kind == _ACCESS:
        return _access(hw, p, event)
    if kind == _PAGE_FAULT:
        page_fault(hw, event.hart, event.a, event.b)
        return 0
    if kind == _ENVCFG_WRITE:
        envcfg_written(hw, event)
        p.state.paging = hw.harts[event.hart].paging
        return 0
    apply(p.guest, kind, event.a, event.c)
    page = page_of(p, event.a)
    if page < 0:
        return 0
    if kind == _TABLE_ADD:
        p.state.live += 1 - p.tables[page].live
        p.tables[page].live = 1
        if p.whole:
            for index in range(pte.ENTRIES):
                mirror_entry(p, page, index, EMPTY)
    elif kind == _TABLE_ENTRY:
        if p.whole:
            mirror_entry(p, page, index_of(event.a), event.c)
    elif kind == _TABLE_DROP:
        _table_dropped(p, page, seen)
    return 0


@inner
def _table_dropped(p: Pool, page: int, seen: bool) -> None:
    """Note that a page is no live table now.  A root dies with it; other shadows do if the policy
    notices."""
    p.state.live -= p.tables[page].live
    p.tables[page].live = 0
    row = 0
    while row < p.state.roots:
        if p.roots[row].page == page:
            forget_root(p, row)
        else:
            row += 1
    if seen:
        give_up_page(p, page)


@inner
def index_of(pa: int) -> int:
    """Index in its table of the entry that ``pa`` lies in."""
    return (pa >> 3) & (pte.ENTRIES - 1)


@inner
def is_leaf_table(p: Pool, page: int) -> bool:
    """Return True if a guest page is shadowed as a leaf table only."""
    above = 0
    for role in range(VIEWS, ROLES):
        above |= p.shadow_of[page, role]
    return above == 0


@inner
def store(p: Pool, event: Event) -> int:
    """Apply the store of a PTE_WRITE to the guest's table; return its page if that has a shadow,
    else -1."""
    if not event.flags & FLAG_CONT:
        p.state.store_trapped = 0
    apply(p.guest, event.kind, event.a, event.c)
    page = page_of(p, event.a)
    if page < 0 or p.tables[page].shadows == 0:
        return -1
    # Hardware that sets A and D: no guest of a shadow table has that, its hypervisor does it.
    if event.sub == _HARDWARE_AD or (event.sub == _OTHER and (event.b ^ event.c) & ~_AD == 0):
        return -1
    return page


@inner
def is_stored(event: Event) -> bool:
    """Return True if an instruction stores, so that write protection meets it.

    DMA is no instruction, and neither is the MMU that sets A and D."""
    return event.sub != _OTHER and event.sub != _HARDWARE_AD


@inner
def trap_store(hw: Hardware, p: Pool, event: Event) -> bool:
    """Take the exit ``pt_write``: one for each store, none for what no instruction stores.

    :return: True if it was taken for this entry.
    """
    if p.state.store_trapped or not is_stored(event):
        return False
    p.state.store_trapped = 1
    take_exit(hw, event.hart, _PT_WRITE)
    return True


@inner
def _fill(p: Pool, satp: int, view: int, va: int, found: Walk) -> int:
    """Copy the guest's translation of ``va`` into the shadow; return the new shadow leaf.

    EMPTY if it cannot be entered: no shadow leaf says it, or a link would have to change that
    the policy keeps."""
    slot = make_root(p, satp, view)
    table = atp.root(satp)
    level = atp.levels(atp.mode(satp)) - 1
    while True:
        p.tables[p.slots[slot].owner].written = 0
        index = (va >> pte.level_bits(level)) & (pte.ENTRIES - 1)
        child = child_of(entry_at(p, slot, index))
        if level == found.level:
            break
        guest_entry = load(p.guest, table + index * 8)
        table = pte.target(guest_entry)
        page = page_of(p, table)
        if child == 0 or p.slots[child].owner != page:
            if child and p.keep_links:
                return EMPTY
            role = p.slots[slot].role - VIEWS
            child = p.shadow_of[page, role] if p.shared else 0
            if child == 0:
                child = new_page(p, page, role)
            elif p.link_rule == LINK_SYNC_ALL:
                sync_below(p, child, _ALL)
            elif p.link_rule == LINK_RESYNC:
                resync_below(p, child)
            link(p, slot, index, child, guest_entry)
        slot = child
        level -= 1
    if child and p.keep_links:
        return EMPTY
    leaf = shadow_leaf(p, found.entry, level, view)
    put(p, slot, index, leaf)
    if level == 0 and p.prefetch > 1:
        _prefetch(p, slot, index, level, view)
    return leaf


@inner
def _prefetch(p: Pool, slot: int, index: int, level: int, view: int) -> None:
    """Fill the empty entries of the aligned window around one for which the guest has a leaf."""
    first = index // p.prefetch * p.prefetch
    table = p.guest.base + (p.slots[slot].owner << 12)
    for other in range(first, min(first + p.prefetch, pte.ENTRIES)):
        if entry_at(p, slot, other) == 0:
            leaf = shadow_leaf(p, load(p.guest, table + other * 8), level, view)
            if leaf:
                put(p, slot, other, leaf)
                p.counts[_PREFETCHED] += 1


@inner
def _is_updated(satp: int, found: Walk) -> bool:
    """Return True if a walk of the guest's tables has set A or D."""
    return found.vs_refs > atp.levels(atp.mode(satp)) - found.level


@inner
def _grant_withheld(p: Pool, satp: int, va: int) -> None:
    """Grant W in the other views of a page whose D was set, if they lacked it only because of D."""
    for view in range(VIEWS):
        root = root_slot(p, satp, view)
        if root:
            slot, index, _ = find_end(p, root, va)
            if entry_at(p, slot, index) & WITHHELD:
                level = p.slots[slot].role // VIEWS
                put(p, slot, index, shadow_leaf(p, guest_entry_of(p, slot, index), level, view))


@inner
def _register_of(satp: int, slot: int) -> int:
    """Return what hardware ``satp`` holds while a shadow root stands for that of ``satp``."""
    return (satp & ~atp.PPN_MASK) | ((POOL_BASE >> 12) + slot)


@inlined
def _access(hw: Hardware, p: Pool, event: Event) -> int:
    """Return the effective translation of an ACCESS: a PA, or ``fault_pa(cause)``."""
    hart, va, kind = event.hart, event.a, event.sub
    priv = event.priv
    satp = hw.harts[hart].satp
    if is_untranslated(satp, priv):
        return untranslated(va, kind)
    flags = access_flags(hw, hart, event.flags)
    view = USER_VIEW
    hw_priv = priv
    hw_flags = flags & ~ADUE
    if p.by_view:
        hw_priv = _USER
        hw_flags &= ~FLAG_SUM
        if priv & 3 != _USER:
            view = SUM_VIEW if flags & FLAG_SUM else SUPERVISOR_VIEW
    if event.flags & FLAG_STOP:
        probe = Request(va, kind, priv, flags | PROBE)
        return _probe(hw, p, hart, satp, view, probe, Request(va, kind, hw_priv, hw_flags))
    tlb = tlb_of(hw, hart)
    asid = asid_of(p, satp)
    tag = GUEST_ID + view
    denied = 0
    guest_request = Request(va, kind, priv, flags)
    request = Request(va, kind, hw_priv, hw_flags)
    for _attempt in range(2):
        row = tlbs.lookup(tlb, va, asid, tag, kind, hw_priv, hw_flags)
        if row >= 0:
            return tlbs.pa_of(tlb, row, va)
        slot = root_slot(p, satp, view)
        if slot:
            cache = cache_of(hw, hart, view)
            register = _register_of(satp, slot)
            walk = walk1(p.shadow, cache, register, request, hw.no_trace)
            count_refs(hw.counts, walk)
            if walk.cause == OK:
                tlbs.fill(tlb, va, asid, tag, kind, walk)
                return walk.pa
            denied = walk.entry
        found = walk1(p.guest, hw.no_cache, satp, guest_request, hw.no_trace)
        if found.cause != OK:
            return access_faulted(hw, hart, va, found.cause)
        sets_dirty = kind == _WRITE and _is_updated(satp, found)
        dirty = sets_dirty and denied & WITHHELD != 0
        take_exit(hw, hart, _DIRTY_FILL if dirty else _SHADOW_FILL)
        if sets_dirty and p.by_view:
            _grant_withheld(p, satp, va)
        if _fill(p, satp, view, va, found) == EMPTY:
            # The hypervisor makes the access for the guest: a link on its way is kept, or a
            # supervisor reads an execute-only user page by SUM and MXR, which no permissions of
            # a shadow page can express.
            return found.pa
    raise RuntimeError("the shadow table denies what the guest's tables allow")


@inner
def _probe(
    hw: Hardware, p: Pool, hart: int, satp: int, view: int, of_guest: Request, request: Request
) -> int:
    """Return the translation that an access would get now; changes and counts nothing.

    ``of_guest`` is the access as the guest's own tables see it, ``request`` as the hardware does.
    """
    va, kind, hw_priv, hw_flags = request
    tlb = tlb_of(hw, hart)
    row = tlbs.probe(tlb, va, asid_of(p, satp), GUEST_ID + view, kind, hw_priv, hw_flags)
    if row >= 0:
        return tlbs.pa_of(tlb, row, va)
    slot = root_slot(p, satp, view)
    if slot:
        walk = walk1(p.shadow, hw.no_cache, _register_of(satp, slot), request, hw.no_trace)
        if walk.cause == OK:
            return walk.pa
    found = walk1(p.guest, hw.no_cache, satp, of_guest, hw.no_trace)
    return found.pa if found.cause == OK else -1 - found.cause


@inner
def hardware_fence(
    hw: Hardware, p: Pool, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Apply a fence of the guest to the hart's TLB, in every privilege view."""
    if not p.use_asid:
        sub &= ~_FORM_ASID
    tlb = tlb_of(hw, hart)
    for view in range(VIEWS if p.by_view else 1):
        cache = cache_of(hw, hart, view)
        tlbs.fence_range(tlb, cache, sub, first, last, asid, GUEST_ID + view)
