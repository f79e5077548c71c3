"""What the guest's tables held before: the entries replaced, the fences and the address spaces.

:mod:`hypervisor_model.legality` asks this whether a translation could still be in a cache of the
hart.  Nothing here grows with the length of a run: replaced entries and fences by address lie in
rings, and :func:`search` says when what it needed has been overwritten.

*Time* is the number of the event that did something (PTE_WRITE, FENCE, SATP_WRITE); the TABLE_*
events after it happen at the same moment.  A value is known to have been in its entry from a time
``since`` up to, not including, ``until``; NOW stands for an entry that still holds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import Fence
from hypervisor_model.isa import atp, pte
from hypervisor_model.isa.causes import access_fault
from hypervisor_model.jit import inner
from hypervisor_model.memory import Ram, holds, load, store
from hypervisor_model.walk import (
    ADUE,
    NO_SVNAPOT,
    POINTS_ON,
    is_canonical,
    outcome_of,
)

NOW = 1 << 62
NEVER = 1 << 62
START = 1
"""The time before the first event."""
ANY_ASID = -1

RECORD_VALUE, RECORD_SINCE, RECORD_UNTIL, RECORD_BEFORE = range(4)
"""Columns of ``records``: a value that an entry held, when, and the number of the record of the
same entry before it (0: none).  Numbers count from 1."""

ADDED, DROPPED = range(2)
"""Columns of ``pages``: when a page became a live table for the last time (0: never was one), and
when it ceased to be one (0: it is one)."""

FENCE_TIME, FENCE_HART, FENCE_VA, FENCE_ASID = range(4)
"""Columns of ``fences``: those that name an address."""

SPACE_SATP, SPACE_SINCE, SPACE_SINCE_ALL, SPACE_NEXT = range(4)
"""Columns of ``spaces``: a value that ``satp`` had, since when its tables may have been cached
(NEVER: not since the last fence of its ASID), the same for global mappings (since the last fence
of everything), and the next row of the same ASID (-1: none)."""

HART_SATP, HART_SPACES, HART_LOST = range(3)
"""Columns of ``harts``: ``satp``, rows of ``spaces``, whether a row found no room since the last
fence of everything."""

TIME, RECORDS, OVERWRITTEN, FENCES = range(4)
"""Elements of ``scalars``: the time; records ever made; until when the records that were
overwritten reach; fences by address ever seen."""

LEVEL, TABLE, LO, GLOBAL, STALE, PARENT, ENTRY_PA, ENTRY_VALUE, ENTRY_UNTIL = range(9)
"""Columns of ``states``: a table that a walk may have reached at a level, from when on, whether
through a global entry, whether by other than the present entries; from which state, by which
entry and its value."""

LEGAL, ILLEGAL, UNDECIDED = range(3)
"""Verdicts of :func:`search`."""

_OWN, _GLOBAL, _EVER = range(3)
WORK_STATES, WORK_STEPS, WORK_DOUBT, WORK_AT, WORK_PA, WORK_VALUE, WORK_UNTIL = range(7)
"""Elements of ``work``: of the running search its states, its steps, and whether something was in
doubt; the state that came to the answer, and by which entry, of what value, until when."""

_FORM_VA = int(Fence.VA)
_FORM_ASID = int(Fence.ASID)
_RSW = 3 << 8
_NAPOT_ENTRIES = 16


class History(NamedTuple):
    """State inside kernels."""

    ram: Ram
    """The guest's tables, as they are."""
    newest: NDArray[np.int64]
    """By word of RAM: the number of the newest record of that entry."""
    pages: NDArray[np.int64]
    records: NDArray[np.int64]
    fences: NDArray[np.int64]
    spaces: NDArray[np.int64]
    """(harts, rows, 4)."""
    first_space: NDArray[np.int64]
    """(harts, ASIDs): row + 1 of the newest space of an ASID, 0 = none."""
    harts: NDArray[np.int64]
    scalars: NDArray[np.int64]
    states: NDArray[np.int64]
    work: NDArray[np.int64]
    flags: int
    """Flags of the guest's own walk."""
    svvptc: int
    max_spaces: int
    max_steps: int


@inner
def table_added(h: History, page_pa: int) -> None:
    """A page of RAM became a live table, empty so far."""
    if not holds(h.ram, page_pa):
        return
    page = (page_pa - h.ram.base) >> 12
    first = page * pte.ENTRIES
    if h.pages[page, ADDED]:
        dropped = h.pages[page, DROPPED]
        until = dropped if dropped else h.scalars[TIME]
        for word in range(first, first + pte.ENTRIES):
            # An entry that was not valid then only adds a fault, in a table that a walk reaches
            # by a stale link; without it, search() says that it does not know.
            if h.ram.words[word] & pte.V:
                _record(h, h.ram.base + (word << 3), h.ram.words[word], until)
    h.ram.words[first : first + pte.ENTRIES] = 0
    h.pages[page, ADDED] = h.scalars[TIME]
    h.pages[page, DROPPED] = 0


@inner
def table_dropped(h: History, page_pa: int) -> None:
    """A page is no live table any more; what becomes of its content is not known."""
    if holds(h.ram, page_pa):
        h.pages[(page_pa - h.ram.base) >> 12, DROPPED] = h.scalars[TIME]


@inner
def table_entry(h: History, pa: int, value: int) -> None:
    """What a table that was just added holds."""
    if holds(h.ram, pa):
        store(h.ram, pa, value)


@inner
def pte_written(h: History, pa: int, value: int) -> None:
    """An entry of a live table was stored to, at the present time."""
    if not holds(h.ram, pa):
        return
    old = load(h.ram, pa)
    if _differ(h, old, value):
        _record(h, pa, old, h.scalars[TIME])
    store(h.ram, pa, value)


@inner
def _differ(h: History, old: int, new: int) -> bool:
    """Whether a walk that meets the old value may come to something else."""
    if not (old | new) & pte.V:
        return False
    if not old & pte.V and h.svvptc and not pte.is_link(new):
        return False
    ignored = _RSW | (pte.A | pte.D if h.flags & ADUE else 0)
    return (old ^ new) & ~ignored != 0


@inner
def _record(h: History, pa: int, value: int, until: int) -> None:
    word = (pa - h.ram.base) >> 3
    since = _since(h, pa)
    row = h.scalars[RECORDS] % h.records.shape[0]
    if h.scalars[RECORDS] >= h.records.shape[0]:
        h.scalars[OVERWRITTEN] = max(h.scalars[OVERWRITTEN], h.records[row, RECORD_UNTIL])
    h.records[row, RECORD_VALUE] = value
    h.records[row, RECORD_SINCE] = since
    h.records[row, RECORD_UNTIL] = until
    h.records[row, RECORD_BEFORE] = h.newest[word]
    h.scalars[RECORDS] += 1
    h.newest[word] = h.scalars[RECORDS]


@inner
def _is_kept(h: History, number: int) -> bool:
    return number > h.scalars[RECORDS] - h.records.shape[0]  # type: ignore[no-any-return]


@inner
def _since(h: History, pa: int) -> int:
    """When the present value of an entry came there; the latest that this can have been, where
    the record of the value before is overwritten."""
    since = h.pages[(pa - h.ram.base) >> 12, ADDED]
    number = h.newest[(pa - h.ram.base) >> 3]
    if number == 0:
        return since  # type: ignore[no-any-return]
    if _is_kept(h, number):
        row = (number - 1) % h.records.shape[0]
        return max(since, h.records[row, RECORD_UNTIL])  # type: ignore[no-any-return]
    return max(since, h.scalars[OVERWRITTEN])  # type: ignore[no-any-return]


@inner
def fenced(h: History, hart: int, form: int, va: int, asid: int) -> None:
    """A fence of the guest's own tables, at the present time; ``form`` as in
    :class:`~hypervisor_model.events.Fence`."""
    if form & _FORM_VA:
        row = h.fences[h.scalars[FENCES] % h.fences.shape[0]]
        row[FENCE_TIME] = h.scalars[TIME]
        row[FENCE_HART] = hart
        row[FENCE_VA] = va
        row[FENCE_ASID] = asid if form & _FORM_ASID else ANY_ASID
        h.scalars[FENCES] += 1
    elif form & _FORM_ASID:
        at = h.first_space[hart, asid] - 1
        while at >= 0:
            space = h.spaces[hart, at]
            is_loaded = space[SPACE_SATP] == h.harts[hart, HART_SATP]
            space[SPACE_SINCE] = h.scalars[TIME] if is_loaded else NEVER
            at = space[SPACE_NEXT]
    else:
        for row in range(h.harts[hart, HART_SPACES]):
            h.first_space[hart, atp.asid(h.spaces[hart, row, SPACE_SATP])] = 0
        h.harts[hart, HART_SPACES] = 0
        h.harts[hart, HART_LOST] = 0
        _space_loaded(h, hart)


@inner
def satp_written(h: History, hart: int, satp: int) -> None:
    """``satp`` of a hart was written, at the present time; the caller asked :func:`has_room`."""
    h.harts[hart, HART_SATP] = satp
    _space_loaded(h, hart)


@inner
def has_room(h: History, hart: int) -> bool:
    """Whether there is a row for a further space of the hart, or never will be."""
    used = h.harts[hart, HART_SPACES]
    return used < h.spaces.shape[1] or used >= h.max_spaces  # type: ignore[no-any-return]


@inner
def _space_loaded(h: History, hart: int) -> None:
    satp = h.harts[hart, HART_SATP]
    if atp.mode(satp) == 0:
        return
    asid = atp.asid(satp)
    at = h.first_space[hart, asid] - 1
    while at >= 0:
        space = h.spaces[hart, at]
        if space[SPACE_SATP] == satp:
            space[SPACE_SINCE] = min(space[SPACE_SINCE], h.scalars[TIME])
            return
        at = space[SPACE_NEXT]
    row = h.harts[hart, HART_SPACES]
    if row == h.spaces.shape[1]:
        h.harts[hart, HART_LOST] = 1
        return
    space = h.spaces[hart, row]
    space[SPACE_SATP] = satp
    space[SPACE_SINCE] = h.scalars[TIME]
    space[SPACE_SINCE_ALL] = h.scalars[TIME]
    space[SPACE_NEXT] = h.first_space[hart, asid] - 1
    h.first_space[hart, asid] = row + 1
    h.harts[hart, HART_SPACES] += 1


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
    """LEGAL if some walk over entries that a cache may still hold comes to the answer, UNDECIDED
    if what would show that is overwritten or was never seen, else ILLEGAL.

    Two kinds of walks are looked for: of the access's own ASID, from the tables that this had
    since the last fence of it without address; and of global mappings, from all tables since the
    last fence of everything.
    """
    h.work[WORK_STEPS] = 0
    h.work[WORK_DOUBT] = h.harts[q.hart, HART_LOST]
    asid = atp.asid(h.harts[q.hart, HART_SATP])
    h.work[WORK_STATES] = 1
    at = h.first_space[q.hart, asid] - 1
    while at >= 0:
        space = h.spaces[q.hart, at]
        since = space[SPACE_SINCE]
        if since != NEVER and _walk_space(h, q, _OWN, space[SPACE_SATP], since):
            return LEGAL
        at = space[SPACE_NEXT]
    h.work[WORK_STATES] = 1
    for row in range(h.harts[q.hart, HART_SPACES]):
        space = h.spaces[q.hart, row]
        if _walk_space(h, q, _GLOBAL, space[SPACE_SATP], space[SPACE_SINCE_ALL]):
            return LEGAL
    return UNDECIDED if h.work[WORK_DOUBT] else ILLEGAL


@inner
def find_origin(h: History, q: Query) -> bool:
    """Whether the loaded tables ever led to the answer, as far as is kept, whatever was fenced
    since.  The path is in ``states`` and ``work`` then."""
    h.work[WORK_STEPS] = 0
    h.work[WORK_STATES] = 1
    return _walk_space(h, q, _EVER, h.harts[q.hart, HART_SATP], 0)


@inner
def _walk_space(h: History, q: Query, kind: int, satp: int, lo: int) -> bool:
    """Follow every walk from the root of a space; True when one comes to the answer.

    State 0 is the root's; the others are kept for further spaces, which need not follow them
    again.
    """
    reached = h.work[WORK_STATES]
    levels = atp.levels(atp.mode(satp))
    if not is_canonical(q.va, levels):
        return False
    root = h.states[0]
    root[LEVEL] = levels - 1
    root[TABLE] = atp.root(satp)
    root[LO] = lo
    root[GLOBAL] = 0
    root[STALE] = satp != h.harts[q.hart, HART_SATP]
    root[PARENT] = -1
    if _read(h, q, kind, 0):
        return True
    at = reached
    while at < h.work[WORK_STATES]:
        if _read(h, q, kind, at):
            return True
        at += 1
    return False


@inner
def _reach(
    h: History,
    level: int,
    table: int,
    lo: int,
    is_global: int,
    stale: int,
    parent: int,
    entry_pa: int,
    value: int,
    until: int,
) -> None:
    """Note a table that walks may have reached, unless a state that allows more has it."""
    for at in range(1, h.work[WORK_STATES]):
        state = h.states[at]
        if (
            state[TABLE] == table
            and state[LEVEL] == level
            and state[LO] <= lo
            and state[GLOBAL] >= is_global
            and state[STALE] >= stale
        ):
            return
    if h.work[WORK_STATES] == h.states.shape[0]:
        h.work[WORK_DOUBT] = 1
        return
    state = h.states[h.work[WORK_STATES]]
    h.work[WORK_STATES] += 1
    state[LEVEL] = level
    state[TABLE] = table
    state[LO] = lo
    state[GLOBAL] = is_global
    state[STALE] = stale
    state[PARENT] = parent
    state[ENTRY_PA] = entry_pa
    state[ENTRY_VALUE] = value
    state[ENTRY_UNTIL] = until


@inner
def _read(h: History, q: Query, kind: int, at: int) -> bool:
    """Follow all values of the entry that translates the address in a reached table."""
    level = h.states[at, LEVEL]
    index = (q.va >> pte.level_bits(level)) & (pte.ENTRIES - 1)
    pa = h.states[at, TABLE] + index * 8
    if not holds(h.ram, pa):
        return kind == _OWN and q.answer == -1 - access_fault(q.access)
    page = (pa - h.ram.base) >> 12
    # Content that no event told: of a page that was no live table at some time in question.
    unseen = h.pages[page, DROPPED] != 0 or h.pages[page, ADDED] > h.states[at, LO]
    if unseen and h.states[at, STALE] != 0 and (kind == _OWN or h.states[at, GLOBAL] != 0):
        h.work[WORK_DOUBT] = 1
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
    lo = h.states[at, LO]
    dropped = h.pages[(pa - h.ram.base) >> 12, DROPPED]
    value = load(h.ram, pa)
    if _follow(h, q, kind, at, pa, value, _since(h, pa), dropped if dropped else NOW, 0, sibling):
        return True
    number = h.newest[(pa - h.ram.base) >> 3]
    since = NOW
    while number:
        if not _is_kept(h, number):
            # Where newer records are kept, the oldest says when the lost one ended.
            if min(since, h.scalars[OVERWRITTEN]) > lo:
                h.work[WORK_DOUBT] = 1
            break
        record = h.records[(number - 1) % h.records.shape[0]]
        until = record[RECORD_UNTIL]
        if until <= lo:
            break
        h.work[WORK_STEPS] += 1
        if h.work[WORK_STEPS] > h.max_steps:
            h.work[WORK_DOUBT] = 1
            break
        since = record[RECORD_SINCE]
        if _follow(h, q, kind, at, pa, record[RECORD_VALUE], since, until, value, sibling):
            return True
        value = record[RECORD_VALUE]
        number = record[RECORD_BEFORE]
    return False


@inner
def _follow(
    h: History,
    q: Query,
    kind: int,
    at: int,
    pa: int,
    value: int,
    since: int,
    until: int,
    successor: int,
    sibling: bool,
) -> bool:
    """Follow one value; ``successor`` is what replaced it."""
    state = h.states[at]
    level, is_global = state[LEVEL], state[GLOBAL]
    if until <= state[LO]:
        return False
    is_leaf = pte.is_leaf(value)
    if sibling:
        number = (value >> pte.PPN_SHIFT) & 15
        if not (is_leaf and value & pte.N and number == pte.NAPOT_64K):
            return False
    outcome = outcome_of(value, level, q.va, q.access, q.priv, q.flags)
    if outcome == POINTS_ON:
        stale = state[STALE] | np.int64(until != NOW)
        inherited = is_global | np.int64(value & pte.G != 0)
        lo = max(state[LO], since)
        _reach(h, level - 1, pte.target(value), lo, inherited, stale, at, pa, value, until)
        return False
    if outcome != q.answer:
        return False
    if kind == _GLOBAL and not is_global and not (is_leaf and value & pte.G):
        return False
    if until != NOW and kind != _EVER:
        if h.svvptc and not value & pte.V:
            return False
        if level == 0 or is_leaf or not pte.is_link(successor):
            bits = pte.level_bits(level)
            if _is_fenced(h, q, kind, bits, until):
                return False
    h.work[WORK_AT] = at
    h.work[WORK_PA] = pa
    h.work[WORK_VALUE] = value
    h.work[WORK_UNTIL] = until
    return True


@inner
def _is_fenced(h: History, q: Query, kind: int, bits: int, until: int) -> bool:
    """Whether a fence by address reached the entry that translates the access since ``until``."""
    asid = atp.asid(h.harts[q.hart, HART_SATP])
    count = min(h.scalars[FENCES], h.fences.shape[0])
    for back in range(count):
        fence = h.fences[(h.scalars[FENCES] - 1 - back) % h.fences.shape[0]]
        if fence[FENCE_TIME] <= until:
            return False
        h.work[WORK_STEPS] += 1
        if h.work[WORK_STEPS] > h.max_steps:
            count = 0
            break
        if (
            fence[FENCE_HART] == q.hart
            and fence[FENCE_VA] >> bits == q.va >> bits
            and (fence[FENCE_ASID] == ANY_ASID or (kind == _OWN and fence[FENCE_ASID] == asid))
        ):
            return True
    if h.scalars[FENCES] > count:
        h.work[WORK_DOUBT] = 1
        return True
    return False
