"""What the guest's tables held before: the entries replaced, the fences and the address spaces.

:mod:`hypervisor_model.legality` asks it if a translation could still be in a cache of the hart.
Nothing here grows with the length of a run: replaced entries and fences by address lie in rings.
:func:`search` says when what it needed has been overwritten.

*Time* is the number of the event that did something (PTE_WRITE, FENCE, SATP_WRITE); the TABLE_*
events after it happen at the same moment.  A value is known to have been in its entry from a time
``since`` up to, not including, ``until``; NOW stands for an entry that still holds it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import FLAG_STOP, Fence, Kind, Priv, PteOp
from hypervisor_model.isa import atp, pte
from hypervisor_model.isa.causes import access_fault
from hypervisor_model.jit import inner, kernel, record_of
from hypervisor_model.memory import Ram, holds, load, store
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.walk import (
    ADUE,
    NO_SVNAPOT,
    PBMTE,
    POINTS_ON,
    is_canonical,
    outcome_of,
)

NOW = 1 << 62
NEVER = 1 << 62
START = 1
"""The time before the first event."""
ANY_ASID = -1

RECORD = record_of("value", "since", "until", "before")
"""A value that an entry held, since and until when, and the number of the record of the same entry
before it (0: none).  Numbers count from 1."""

PAGE = record_of("added", "dropped")
"""When a page became a live table for the last time (0: it never was one), and when it ceased to
be one (0: it is one)."""

FENCE = record_of("time", "hart", "first", "last", "asid", "covers")
"""A fence that names addresses, the first and the last of them.  It drops what was replaced up to
``covers``, which is its own time, or an earlier one for ``sinval.vma`` and remote fences."""

SPACE = record_of("satp", "since", "since_all", "next")
"""A value that ``satp`` had; since when its tables may have been cached (NEVER: not since the last
fence of its ASID); the same for global mappings (since the last fence of everything); and the next
row of the same ASID (-1: none)."""

HART = record_of(
    "satp",
    "spaces",
    "lost",
    "paging",
    "unfenced",
    "loaded",
    "switched",
    "acted",
)
"""``satp``; rows of ``spaces``; 1 if a row found no room since the last fence of everything; the
paging features that are on; the sets of them (1 << the flags' number) that were on since the last
fence of everything; the times of the last change of ``satp``, the last switch of a paging feature
and, of machines with several harts, the last thing that the guest's kernel or programs did."""

STATE = record_of("time", "records", "overwritten", "fences", "ignores_ad")
"""The time; records ever made; until when the records that were overwritten reach; fences by
address ever seen; 1 as long as all harts have set A and D themselves."""

REACHED = record_of(
    "level",
    "table",
    "since",
    "is_global",
    "stale",
    "parent",
    "entry_pa",
    "entry_value",
    "entry_until",
)
"""A table that a walk may have reached: its level and address; from when on; 1 if through a global
entry; 1 if by other than the present entries; from which state (-1: it is a root), by which entry,
its value and until when it had that."""

WORK = record_of("states", "steps", "doubt", "at", "pa", "value", "until")
"""Of the running search: its states, its steps, and 1 if something was in doubt.  Of the walk that
came to the answer: the state that it came from, the entry, its value, and until when it held."""

LEGAL, ILLEGAL, UNDECIDED = range(3)
"""Verdicts of :func:`search`."""

_OWN, _GLOBAL, _EVER = range(3)

_wide: Any = np.int64
_ACCESS = int(Kind.ACCESS)
_PTE_WRITE = int(Kind.PTE_WRITE)
_FENCE = int(Kind.FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)
_MACHINE = int(Priv.M)
_OTHER = int(PteOp.OTHER)
_HARDWARE_AD = int(PteOp.HARDWARE_AD)
_FORM_VA = int(Fence.VA)
_FORM_ASID = int(Fence.ASID)
_RSW = 3 << 8
_NAPOT_ENTRIES = 16
_NOTHING: Any = np.int64(0)


class History(NamedTuple):
    """State inside kernels."""

    ram: Ram
    """The guest's tables, as they are."""
    newest: NDArray[np.int64]
    """By word of RAM: the number of the newest record of that entry."""
    pages: NDArray[Any]
    """By page of RAM; see :data:`PAGE`."""
    records: NDArray[Any]
    """A ring; see :data:`RECORD`."""
    fences: NDArray[Any]
    """A ring; see :data:`FENCE`."""
    spaces: NDArray[Any]
    """(harts, rows); see :data:`SPACE`."""
    first_space: NDArray[np.int64]
    """(harts, ASIDs): row + 1 of the newest space of an ASID, 0 = none."""
    harts: NDArray[Any]
    """See :data:`HART`."""
    state: Any
    """See :data:`STATE`."""
    states: NDArray[Any]
    """See :data:`REACHED`."""
    work: Any
    """See :data:`WORK`."""
    flags: int
    """Flags of the guest's own walk, without those of ``PAGING``."""
    svvptc: int
    max_spaces: int
    max_steps: int


@inner
def table_added(h: History, page_pa: int) -> None:
    """Note that a page of RAM became a live table, empty so far."""
    if not holds(h.ram, page_pa):
        return
    page = (page_pa - h.ram.base) >> 12
    first = page * pte.ENTRIES
    if h.pages[page].added:
        dropped = h.pages[page].dropped
        until = dropped if dropped else h.state.time
        for word in range(first, first + pte.ENTRIES):
            # An entry that was not valid then only adds a fault, in a table that a walk reaches
            # by a stale link; without it, search() says that it does not know.
            if h.ram.words[word] & pte.V:
                _record(h, h.ram.base + (word << 3), h.ram.words[word], until)
    h.ram.words[first : first + pte.ENTRIES] = 0
    h.pages[page].added = h.state.time
    h.pages[page].dropped = 0


@inner
def table_dropped(h: History, page_pa: int) -> None:
    """Note that a page is no live table any more; its content is not known from now on."""
    if holds(h.ram, page_pa):
        h.pages[(page_pa - h.ram.base) >> 12].dropped = h.state.time


@inner
def table_entry(h: History, pa: int, value: int) -> None:
    """Note what a table that was just added holds."""
    if holds(h.ram, pa):
        store(h.ram, pa, value)


@inner
def pte_written(h: History, pa: int, value: int) -> None:
    """Note that an entry of a live table was stored to now."""
    if not holds(h.ram, pa):
        return
    old = load(h.ram, pa)
    if _differ(h, old, value):
        _record(h, pa, old, h.state.time)
    store(h.ram, pa, value)


@inner
def _differ(h: History, old: int, new: int) -> bool:
    """Return True if a walk that meets the old value may come to something else."""
    if not (old | new) & pte.V:
        return False
    if not old & pte.V and h.svvptc and not pte.is_link(new):
        return False
    ignored = _RSW | (pte.A | pte.D if h.state.ignores_ad else 0)
    return (old ^ new) & ~ignored != 0


@inner
def _record(h: History, pa: int, value: int, until: int) -> None:
    word = (pa - h.ram.base) >> 3
    since = since_when(h, pa)
    row = h.state.records % h.records.shape[0]
    if h.state.records >= h.records.shape[0]:
        h.state.overwritten = max(h.state.overwritten, h.records[row].until)
    h.records[row].value = value
    h.records[row].since = since
    h.records[row].until = until
    h.records[row].before = h.newest[word]
    h.state.records += 1
    h.newest[word] = h.state.records


@inner
def is_kept(h: History, number: int) -> bool:
    """Return True if the record of this number is not overwritten."""
    return number > h.state.records - h.records.shape[0]  # type: ignore[no-any-return]


@inner
def since_when(h: History, pa: int) -> int:
    """Return when the present value of an entry came there.  If the record of the value before is
    overwritten, the latest time that this can have been."""
    since = h.pages[(pa - h.ram.base) >> 12].added
    number = h.newest[(pa - h.ram.base) >> 3]
    if number == 0:
        return since  # type: ignore[no-any-return]
    if is_kept(h, number):
        row = (number - 1) % h.records.shape[0]
        return max(since, h.records[row].until)  # type: ignore[no-any-return]
    return max(since, h.state.overwritten)  # type: ignore[no-any-return]


@inner
def fenced(h: History, hart: int, form: int, va: int, asid: int) -> None:
    """Note that the guest fenced its own tables now; ``form`` as in
    :class:`~hypervisor_model.events.Fence`."""
    if form & _FORM_VA:
        page_fenced(h, hart, form, va, va, asid, h.state.time)
    elif form & _FORM_ASID:
        at = h.first_space[hart, asid] - 1
        while at >= 0:
            space = h.spaces[hart, at]
            is_loaded = space.satp == h.harts[hart].satp
            space.since = h.state.time if is_loaded else NEVER
            at = space.next
    else:
        for row in range(h.harts[hart].spaces):
            h.first_space[hart, atp.asid(h.spaces[hart, row].satp)] = 0
        h.harts[hart].spaces = 0
        h.harts[hart].lost = 0
        h.harts[hart].unfenced = set_of(h.harts[hart].paging)
        _space_loaded(h, hart)


@inner
def acted(h: History, event: Event, time: int) -> None:
    """Note that the guest's kernel or programs did something on a hart; M-mode counts as neither.

    Remote fences need it, which a machine of one hart does not have."""
    if event.priv & 3 == _MACHINE:
        return
    if event.flags & FLAG_STOP or event.kind not in (_ACCESS, _PTE_WRITE, _FENCE, _SATP_WRITE):
        return
    if event.kind == _PTE_WRITE and event.sub in (_OTHER, _HARDWARE_AD):
        return
    h.harts[event.hart].acted = time


@inner
def called(h: History, hart: int) -> int:
    """Return up to when a remote fence that has returned to ``hart`` drops what was replaced.

    Each hart that it names has executed its fence after the call.  The call came after the last
    thing that the caller did before, and nothing else tells when.
    """
    return h.harts[hart].acted if h.harts.shape[0] > 1 else h.state.time  # type: ignore[no-any-return]


@inner
def fenced_up_to(
    h: History, hart: int, form: int, first: int, last: int, asid: int, covers: int
) -> None:
    """Note a fence of a hart that came some time ago, but not before ``covers``."""
    if form & _FORM_VA:
        page_fenced(h, hart, form, first, last, asid, covers)
        return
    state = h.harts[hart]
    if state.switched <= covers and state.loaded <= covers and not form & _FORM_ASID:
        # Only the space that is loaded was loaded since then.
        since = since_all = _wide(0)
        for row in range(state.spaces):
            if h.spaces[hart, row].satp == state.satp:
                since = h.spaces[hart, row].since
                since_all = h.spaces[hart, row].since_all
        fenced(h, hart, form, first, asid)
        if state.spaces:
            h.spaces[hart, 0].since = max(since, covers)
            h.spaces[hart, 0].since_all = max(since_all, covers)
        return
    for row in range(state.spaces):
        space = h.spaces[hart, row]
        if form & _FORM_ASID and atp.asid(space.satp) != asid:
            continue
        # Another space may have been loaded since, and read from then on.
        is_kept = space.satp == state.satp or state.loaded > covers
        space.since = max(space.since, covers) if is_kept else NEVER
        if not form & _FORM_ASID:
            space.since_all = max(space.since_all, covers) if is_kept else NEVER


@inner
def page_fenced(
    h: History, hart: int, form: int, first: int, last: int, asid: int, covers: int
) -> None:
    """Note that a fence by address came now, which drops what was replaced up to ``covers``."""
    row = h.fences[h.state.fences % h.fences.shape[0]]
    row.time = h.state.time
    row.hart = hart
    row.first = first
    row.last = last
    row.asid = asid if form & _FORM_ASID else ANY_ASID
    row.covers = covers
    h.state.fences += 1


@inner
def satp_written(h: History, hart: int, satp: int) -> None:
    """``satp`` of a hart was written, at the present time; the caller asked :func:`has_room`."""
    if h.harts[hart].satp != satp:
        h.harts[hart].loaded = h.state.time
    h.harts[hart].satp = satp
    _space_loaded(h, hart)


@inner
def number_of(paging: int) -> int:
    """Return the number of these paging features in a set."""
    return (1 if paging & ADUE else 0) | (2 if paging & PBMTE else 0)


@kernel
def set_of(paging: int) -> int:
    """Return the set that holds ``paging`` alone."""
    return 1 << number_of(paging)


@inner
def paging_of(number: int) -> int:
    """Return the paging features with this number in a set."""
    return (ADUE if number & 1 else 0) | (PBMTE if number & 2 else 0)


@inner
def paging_switched(h: History, hart: int, paging: int) -> None:
    """Note that the paging features of a hart are switched.  The hart may go on with what was on
    before, until it fences everything."""
    h.harts[hart].paging = paging
    h.harts[hart].switched = h.state.time
    h.harts[hart].unfenced |= set_of(paging)
    if not paging & ADUE:
        h.state.ignores_ad = 0


@inner
def has_room(h: History, hart: int) -> bool:
    """Return True if there is a row for a further space of the hart, or never will be."""
    used = h.harts[hart].spaces
    return used < h.spaces.shape[1] or used >= h.max_spaces  # type: ignore[no-any-return]


@inner
def _space_loaded(h: History, hart: int) -> None:
    satp = h.harts[hart].satp
    if atp.mode(satp) == 0:
        return
    asid = atp.asid(satp)
    at = h.first_space[hart, asid] - 1
    while at >= 0:
        space = h.spaces[hart, at]
        if space.satp == satp:
            space.since = min(space.since, h.state.time)
            space.since_all = min(space.since_all, h.state.time)
            return
        at = space.next
    row = h.harts[hart].spaces
    if row == h.spaces.shape[1]:
        h.harts[hart].lost = 1
        return
    space = h.spaces[hart, row]
    space.satp = satp
    space.since = h.state.time
    space.since_all = h.state.time
    space.next = h.first_space[hart, asid] - 1
    h.first_space[hart, asid] = row + 1
    h.harts[hart].spaces += 1


PAGING_SETS = 4
"""The numbers of a set of paging features are below this."""


class Query(NamedTuple):
    """One access and the answer that is looked for."""

    hart: int
    va: int
    access: int
    priv: int
    flags: int
    answer: int


@inner
def search(h: History, q: Query) -> int:
    """Return LEGAL if some walk over entries that a cache may still hold comes to the answer,
    UNDECIDED if what would show that is overwritten or was never seen, else ILLEGAL.

    Two kinds of walks are looked for: of the access's own ASID, from the tables that this had
    since the last fence of it without address; and of global mappings, from all tables since the
    last fence of everything.
    """
    h.work.steps = 0
    h.work.doubt = h.harts[q.hart].lost
    asid = atp.asid(h.harts[q.hart].satp)
    h.work.states = 1
    at = h.first_space[q.hart, asid] - 1
    while at >= 0:
        space = h.spaces[q.hart, at]
        since = space.since
        if since != NEVER and _walk_space(h, q, _OWN, space.satp, since):
            return LEGAL
        at = space.next
    h.work.states = 1
    for row in range(h.harts[q.hart].spaces):
        space = h.spaces[q.hart, row]
        if _walk_space(h, q, _GLOBAL, space.satp, space.since_all):
            return LEGAL
    return UNDECIDED if h.work.doubt else ILLEGAL


@inner
def find_origin(h: History, q: Query) -> bool:
    """Return True if the loaded tables ever led to the answer, as far as is kept, whatever was
    fenced since.  The path is in ``states`` and ``work`` then."""
    h.work.steps = 0
    h.work.states = 1
    return _walk_space(h, q, _EVER, h.harts[q.hart].satp, 0)


@inner
def _walk_space(h: History, q: Query, kind: int, satp: int, lo: int) -> bool:
    """Follow every walk from the root of a space; return True if one comes to the answer.

    State 0 is the root's; the others are kept for further spaces, which need not follow them
    again.
    """
    reached = h.work.states
    levels = atp.levels(atp.mode(satp))
    if not is_canonical(q.va, levels):
        return False
    root = h.states[0]
    root.level = levels - 1
    root.table = atp.root(satp)
    root.since = lo
    root.is_global = 0
    root.stale = satp != h.harts[q.hart].satp
    root.parent = -1
    if _read(h, q, kind, 0):
        return True
    at = reached
    while at < h.work.states:
        if _read(h, q, kind, at):
            return True
        at += 1
    return False


class _Held(NamedTuple):
    """A value that an entry held."""

    pa: int
    """Of the entry."""
    value: int
    since: int
    until: int
    successor: int
    """What replaced it; 0 if nothing did."""
    sibling: bool
    """The entry is another one of the NAPOT range than the one that translates the address."""


@inner
def _reach(h: History, at: int, held: _Held) -> None:
    """Note the table that a value points to, unless a state that allows more has it."""
    above = h.states[at]
    level = above.level - 1
    table = pte.target(held.value)
    since = max(above.since, held.since)
    is_global = above.is_global | np.int64(held.value & pte.G != 0)
    stale = above.stale | np.int64(held.until != NOW)
    for other in range(1, h.work.states):
        known = h.states[other]
        if (
            known.table == table
            and known.level == level
            and known.since <= since
            and known.is_global >= is_global
            and known.stale >= stale
        ):
            return
    if h.work.states == h.states.shape[0]:
        h.work.doubt = 1
        return
    state = h.states[h.work.states]
    h.work.states += 1
    state.level = level
    state.table = table
    state.since = since
    state.is_global = is_global
    state.stale = stale
    state.parent = at
    state.entry_pa = held.pa
    state.entry_value = held.value
    state.entry_until = held.until


@inner
def _read(h: History, q: Query, kind: int, at: int) -> bool:
    """Follow all values of the entry that translates the address in a reached table."""
    level = h.states[at].level
    index = (q.va >> pte.level_bits(level)) & (pte.ENTRIES - 1)
    pa = h.states[at].table + index * 8
    if not holds(h.ram, pa):
        return kind == _OWN and q.answer == -1 - access_fault(q.access)
    page = (pa - h.ram.base) >> 12
    # Content that no event told: of a page that was no live table at some time in question.
    unseen = h.pages[page].dropped != 0 or h.pages[page].added > h.states[at].since
    if unseen and h.states[at].stale != 0 and (kind == _OWN or h.states[at].is_global != 0):
        h.work.doubt = 1
    if _values(h, q, kind, at, pa, False):
        return True
    if level == 0 and not h.flags & NO_SVNAPOT:
        # A NAPOT entry may have been cached for every page of its range.
        first = pa & ~(_NAPOT_ENTRIES * 8 - 1)
        for other in range(first, first + _NAPOT_ENTRIES * 8, 8):
            if other != pa and _values(h, q, kind, at, other, True):
                return True
    return False


@inner
def _values(h: History, q: Query, kind: int, at: int, pa: int, sibling: bool) -> bool:
    lo = h.states[at].since
    dropped = h.pages[(pa - h.ram.base) >> 12].dropped
    value = load(h.ram, pa)
    until = dropped if dropped else NOW
    held = _Held(pa, value, since_when(h, pa), until, _NOTHING, sibling)
    if _follow(h, q, kind, at, held):
        return True
    number = h.newest[(pa - h.ram.base) >> 3]
    since = NOW
    while number:
        if not is_kept(h, number):
            # The oldest record that is kept says when the lost one ended.
            if min(since, h.state.overwritten) > lo:
                h.work.doubt = 1
            break
        record = h.records[(number - 1) % h.records.shape[0]]
        until = record.until
        if until <= lo:
            break
        h.work.steps += 1
        if h.work.steps > h.max_steps:
            h.work.doubt = 1
            break
        since = record.since
        if _follow(h, q, kind, at, _Held(pa, record.value, since, until, value, sibling)):
            return True
        value = record.value
        number = record.before
    return False


@inner
def _follow(h: History, q: Query, kind: int, at: int, held: _Held) -> bool:
    """Follow one value of an entry in a reached table; return True if it gives the answer."""
    state = h.states[at]
    level = state.level
    value = held.value
    if held.until <= state.since:
        return False
    is_leaf = pte.is_leaf(value)
    if held.sibling:
        number = (value >> pte.PPN_SHIFT) & 15
        if not (is_leaf and value & pte.N and number == pte.NAPOT_64K):
            return False
    outcome = outcome_of(value, level, q.va, q.access, q.priv, q.flags)
    if outcome == POINTS_ON:
        _reach(h, at, held)
        return False
    if outcome != q.answer:
        return False
    if kind == _GLOBAL and not state.is_global and not (is_leaf and value & pte.G):
        return False
    if held.until != NOW and kind != _EVER:
        if h.svvptc and not value & pte.V:
            return False
        if level == 0 or is_leaf or not pte.is_link(held.successor):
            bits = pte.level_bits(level)
            if _is_fenced(h, q, kind, bits, held.until):
                return False
    h.work.at = at
    h.work.pa = held.pa
    h.work.value = value
    h.work.until = held.until
    return True


@inner
def _is_fenced(h: History, q: Query, kind: int, bits: int, until: int) -> bool:
    """Return True if a fence by address has reached the access's entry since ``until``."""
    asid = atp.asid(h.harts[q.hart].satp)
    count = min(h.state.fences, h.fences.shape[0])
    for back in range(count):
        fence = h.fences[(h.state.fences - 1 - back) % h.fences.shape[0]]
        if fence.time <= until:
            return False
        h.work.steps += 1
        if h.work.steps > h.max_steps:
            count = 0
            break
        if (
            fence.hart == q.hart
            and fence.covers >= until
            and fence.first >> bits <= q.va >> bits <= fence.last >> bits
            and (fence.asid == ANY_ASID or (kind == _OWN and fence.asid == asid))
        ):
            return True
    if h.state.fences > count:
        h.work.doubt = 1
        return True
    return False
