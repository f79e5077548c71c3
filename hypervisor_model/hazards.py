"""Kernels of the fence checker: what a hart may hold, and if an access depends on it.

:mod:`hypervisor_model.fences` says what is looked for and has the class that people use.  This
module keeps the state and follows the stream, on top of the history of the tables
(:mod:`hypervisor_model.table_history`).

A search starts at each root that the hart had in ``satp`` and follows every value that an entry
had, as long as the hart can have read it: while it was in its table, while ``satp`` led there, and
after the fences that would have dropped it.  Times are those of the history.

The search has the shape of :func:`hypervisor_model.table_history.search`, but it is another one.
That one looks for a walk that comes to a given answer, and stops there; the more stale entries a
state allows, the better.  This one looks for the worst walk that needs the fewest stale entries,
and names the store to blame.  So they keep other states and give up other branches, and neither is
a case of the other.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import table_history as history
from hypervisor_model.events import (
    FLAG_MXR,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    EventBatch,
    Fence,
    Kind,
    Order,
    Priv,
    PteOp,
)
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import inner, kernel, record_of
from hypervisor_model.memory import holds, load
from hypervisor_model.policies.event_fields import Event, event_at, fence_of
from hypervisor_model.policies.hart import is_untranslated, switched
from hypervisor_model.table_history import ANY_ASID, NEVER, NOW, START, History
from hypervisor_model.walk import (
    ADUE,
    NO_SVNAPOT,
    OK,
    POINTS_ON,
    PROBE,
    Request,
    Walk,
    is_canonical,
    outcome_of,
    walk1,
)
from hypervisor_model.walk_cache import WalkCache


class Hazard(IntEnum):
    """What hardware could get wrong, and which change made it possible."""

    FRAME_CHANGED = 0
    """The page maps another frame now; the old one could be used."""
    PERMISSION_LOST = 1
    """The access faults now; it could go through."""
    LINK_CHANGED = 2
    """A pointer to a table was replaced; a walk could still use the old table."""
    FREED_REACHABLE = 3
    """A page was a table and holds something else now; a walk could still take it for a table."""
    ASID_REUSED = 4
    """``satp`` got another root with an ASID whose old translations could still be used."""
    GLOBAL_DIFFERS = 5
    """A page is global in a space that was loaded before, and this space maps it otherwise."""
    DIRTY_CLEARED = 6
    """Software cleared D; a store could leave it clear (Svade)."""
    ACCESSED_CLEARED = 7
    """Software cleared A; an access could leave it clear (Svade)."""
    PAGING_SWITCHED = 8
    """ADUE or PBMTE of ``menvcfg`` was switched; the setting before could still be used."""
    WRONG_HART = 9
    """The fence was executed, but not on the hart that could still use the old translation."""
    MEMORY_TYPE_CHANGED = 10
    """The page has another memory type now (Svpbmt), and one of the two may be cacheable; the old
    one could be used."""
    MEMORY_ORDER_CHANGED = 11
    """As before, but neither type is cacheable (NC and IO): only the order of accesses differs."""
    MADE_VALID = 12
    """Legal: an entry became valid; the access could fault once more."""
    PERMISSION_GAINED = 13
    """Legal: an entry allows more than before; the access could fault once more."""


LEGAL = frozenset({Hazard.MADE_VALID, Hazard.PERMISSION_GAINED})
"""What the specification allows to leave unfenced."""

(
    _FRAME_CHANGED,
    _PERMISSION_LOST,
    _LINK_CHANGED,
    _FREED,
    _ASID_REUSED,
    _GLOBAL_DIFFERS,
    _DIRTY_CLEARED,
    _ACCESSED_CLEARED,
    _PAGING_SWITCHED,
    _WRONG_HART,
    _MEMORY_TYPE,
    _MEMORY_ORDER,
    _MADE_VALID,
    _PERMISSION_GAINED,
) = (int(kind) for kind in Hazard)

_TABLE_ADD = int(Kind.TABLE_ADD)
_TABLE_ENTRY = int(Kind.TABLE_ENTRY)
_TABLE_DROP = int(Kind.TABLE_DROP)
_PTE_WRITE = int(Kind.PTE_WRITE)
_FENCE = int(Kind.FENCE)
_FENCE_ORDER = int(Kind.FENCE_ORDER)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_MARK = int(Kind.MARK)
_SATP_WRITE = int(Kind.SATP_WRITE)
_ENVCFG_WRITE = int(Kind.ENVCFG_WRITE)
_ACCESS = int(Kind.ACCESS)
_WRITE = int(Access.WRITE)
_READ = int(Access.READ)
_USER = int(Priv.U)
_OTHER = int(PteOp.OTHER)
_HARDWARE_AD = int(PteOp.HARDWARE_AD)
_W_INVAL = int(Order.SFENCE_W_INVAL)
_SINVAL_VMA = int(Fence.SINVAL_VMA)
_FORM = int(Fence.FORM)
_FORM_VA = int(Fence.VA)
_FORM_ASID = int(Fence.ASID)
_RIGHTS = FLAG_SUM | FLAG_MXR
_SAMPLE = FLAG_STOP
_NAPOT_ENTRIES = 16
MEMO = 1 << 14
FENCED = 1 << 14
SITES = 1 << 12

_OWN, _GLOBAL = range(2)
_BY_ROOT, _BY_ASID, _BY_ANY = range(3)

_wide: Any = np.int64

TYPE_SHIFT = 60
"""In what an access comes to, the memory type (PBMT) lies from this bit on, above every PA."""
PA_MASK = (1 << TYPE_SHIFT) - 1


STORE = record_of("event", "pc", "hart", "icount", "pa", "new", "level")
"""The store that made a record of the history; ``event`` is -1 if none did."""
LOG = record_of(
    "time",
    "hart",
    "caller",
    "sub",
    "va",
    "last",
    "asid",
    "pc",
    "icount",
    "order",
    "covers",
)
"""A fence on a hart; the hart that called for it, or -1 if it is the hart's own; the first and the
last address that it covers; the time up to which it drops what was read; the same, once it is in
force (until then 0).  Both are its own time, except for ``sinval.vma`` and remote fences."""
SVINVAL = record_of("ordered", "first")
"""Of a hart: the last ``sfence.w.inval``; the number in the log, + 1, of the first ``sinval.vma``
that waits for ``sfence.inval.ir`` (0: none does)."""
PROGRESS = record_of("user", "kernel", "pages")
"""Of a hart: when a program ran on it last, or ``satp`` was written; when its kernel last stored to
a table, fenced, called for a fence or reached a mark; up to when its fences by address drop what
was read."""
LOAD = record_of("time", "satp", "pc", "icount")
"""A write of ``satp``."""
SWITCH = record_of("time", "pc", "icount", "old", "new")
"""The last switch of a hart's paging features (time 0: none), and ``menvcfg`` before and after."""
ABSENCE = record_of("begin", "end")
"""The last time in which a space was not in ``satp``, and the pointers read through it had been
dropped by a fence of its ASID (0: there was none)."""
PAGE_FENCE = record_of("page", "asid", "time")
"""The last fence of a page; its ASID or ANY_ASID; when (0: the slot was never used)."""
TABLE = record_of("level", "prefix", "freed", "reused", "napot")
"""Of a page: the level at which it was last linked, and the first address that it translates; 1 if
it was dropped and nothing has been written to it since; when it was written to after it was dropped
(0: not); 1 if a NAPOT entry ever was in it."""
REACHED = record_of("level", "table", "since", "is_global", "asid", "stale", "blame", "limit")
"""A table that a walk may reach: its level and address; when a hart can first have read the pointer
to it; 1 if below a global entry; the ASID; how many replaced entries led there, and the record of
the first; until when the pointer can be used."""
BEST = record_of(
    "kind",
    "cost",
    "outcome",
    "value",
    "level",
    "blame",
    "pa",
    "satp",
    "is_own",
    "today",
    "switched",
)
"""The worst translation found for an access, and what the tables say today, as
:func:`_with_type` has them.  1 if a switch of
paging features is to blame, and no store."""
SITE = record_of(
    "pc",
    "kind",
    "accesses",
    "stores",
    "last",
    "waiting",
    "hart",
    "va",
    "bits",
    "asid",
    "link",
    "owed",
    "late",
)
"""A store site with hazards: how many accesses and stores; the store counted last.  If it waits for
a fence: for whom, since when, and the number of that fence + 1 when it has come."""
STATE = record_of(
    "states",
    "doubt",
    "log",
    "sites",
    "epoch",
    "legal",
    "svvptc",
    "ordered",
    "accesses",
    "hazards",
    "undecided",
    "waiting",
    "found_at",
    "raced",
)
"""States of the running search, and 1 if it would have needed more history; fences ever logged;
sites; a number that changes when tables do; 1 if legal kinds count; 1 if the machine has Svvptc;
1 if the stream says how the fences of Svinval are ordered; counts of accesses; sites that wait for
a fence; the index in the batch of the event that showed the newest site; 1 if the running search
has left out what another hart has just changed."""


class Checker(NamedTuple):
    """State inside kernels, besides the history of the tables."""

    stores: NDArray[Any]
    """As many as the history has records; see :data:`STORE`."""
    log: NDArray[Any]
    """A ring; see :data:`LOG`."""
    loads: NDArray[Any]
    """(harts, n): rings; see :data:`LOAD`."""
    loaded: NDArray[np.int64]
    """Writes of ``satp`` ever seen, by hart."""
    switches: NDArray[Any]
    """By hart; see :data:`SWITCH`."""
    settings: NDArray[np.int64]
    """(harts, sets of paging features): until when a set was on last (0: never).  For the one
    that is on now this means nothing."""
    svinval: NDArray[Any]
    """By hart; see :data:`SVINVAL`."""
    progress: NDArray[Any]
    """By hart; see :data:`PROGRESS`."""
    fenced: NDArray[Any]
    """(harts, n): the last fence of a page; see :data:`PAGE_FENCE`."""
    ends: NDArray[np.int64]
    """(harts, rows), as the history's spaces: the first fence of its ASID since the space was last
    in ``satp``; 0 if there was none."""
    absences: NDArray[Any]
    """(harts, rows), as the history's spaces; see :data:`ABSENCE`."""
    tables: NDArray[Any]
    """By page of RAM; see :data:`TABLE`."""
    states: NDArray[Any]
    """See :data:`REACHED`."""
    best: Any
    """See :data:`BEST`."""
    sites: NDArray[Any]
    """Open addressing; see :data:`SITE`."""
    order: NDArray[np.int64]
    """The places of the sites in the order in which they were found."""
    memo: NDArray[np.int64]
    """(n, 2): accesses that were found right, and the epoch in which they were."""
    state: Any
    """See :data:`STATE`."""
    no_cache: WalkCache
    no_trace: NDArray[Any]


class _Ask(NamedTuple):
    """An access, or the search for walks to a table."""

    hart: int
    va: int
    access: int
    priv: int
    flags: int
    today: int
    """As :func:`_with_type` has it."""
    today_leaf: int
    """The entry that decides."""
    today_ad: int
    """The same if A and D were set."""
    find: int
    """The table to find; -1: judge the access."""
    before: int
    """1 if ``flags`` has the paging features from before a switch."""
    satp: int
    """Of the hart."""


class _Space(NamedTuple):
    """An address space whose tables are searched."""

    kind: int
    """_OWN: with the ASID of the access; _GLOBAL: global mappings of any."""
    satp: int


class _Held(NamedTuple):
    """A value that an entry held."""

    pa: int
    """Of the entry."""
    value: int
    since: int
    until: int
    by: int
    """The record of it if a store replaced it, or 0."""
    sibling: bool
    """The entry is another one of the NAPOT range than the one that translates the address."""


@inner
def _with_type(outcome: int, leaf: int) -> int:
    """Return what a walk comes to (a PA or ``fault_pa(cause)``), a PA with the memory type of its
    leaf above it."""
    if outcome < 0:
        return outcome
    return outcome | (leaf >> pte.PBMT_SHIFT & 3) << TYPE_SHIFT


# -- finding what a hart may hold ------------------------------------------------------------------


@inner
def _first_loaded(h: History, c: Checker, hart: int, by: int, satp: int, a: int, b: int) -> int:
    """Return the first moment from ``a`` on and before ``b`` at which ``satp`` was this value (by
    root), or had its ASID (by ASID), or was not Bare (by any); NEVER if there is none."""
    found = NEVER
    total = c.loaded[hart]
    size = c.loads.shape[1]
    end = b
    for back in range(min(total, size)):
        row = c.loads[hart, (total - 1 - back) % size]
        begin = max(row.time, a)
        if begin < end:
            fits = row.satp == satp
            if by == _BY_ASID:
                fits = atp.mode(row.satp) != 0 and atp.asid(row.satp) == atp.asid(satp)
            elif by == _BY_ANY:
                fits = atp.mode(row.satp) != 0
            if fits:
                found = begin
        if row.time <= a:
            return found
        end = min(end, row.time)
    if total > size:
        c.state.doubt = 1
    return found


@inner
def _first_read(
    h: History,
    c: Checker,
    hart: int,
    by: int,
    satp: int,
    reached: int,
    since: int,
    until: int,
) -> int:
    """Return when a hart can first have read a value that its entry held in [since, until), if it
    could read the table from ``reached`` on; NEVER if it could not."""
    if since <= reached:
        return reached if reached < until else NEVER
    if since >= until:
        return NEVER
    return _first_loaded(h, c, hart, by, satp, since, until)


@inner
def _last_loaded(h: History, c: Checker, hart: int, by: int, satp: int, before: int) -> int:
    """Return the last moment before ``before`` at which ``satp`` was as in
    :func:`_first_loaded`."""
    total = c.loaded[hart]
    size = c.loads.shape[1]
    end = before
    for back in range(min(total, size)):
        row = c.loads[hart, (total - 1 - back) % size]
        if row.time < end:
            fits = row.satp == satp
            if by == _BY_ASID:
                fits = atp.mode(row.satp) != 0 and atp.asid(row.satp) == atp.asid(satp)
            if fits:
                return end - 1
            end = row.time
    if total > size:
        c.state.doubt = 1
    return before


@inner
def _next_fence(c: Checker, hart: int, asid: int, after: int) -> int:
    """Return the time of the first fence of a whole ASID after a time; NEVER if there was none, and
    that time itself if it would need more fences than are kept."""
    found = NEVER
    count = min(c.state.log, c.log.shape[0])
    for back in range(count):
        row = c.log[(c.state.log - 1 - back) % c.log.shape[0]]
        if row.time <= after:
            return found
        if (
            row.hart == hart
            and row.sub & _FORM == _FORM_ASID
            and row.asid == asid
            and row.covers > after
        ):
            found = min(found, row.covers)
    if c.state.log > count:
        c.state.doubt = 1
        return after
    return found


@inner
def _fenced_slot(c: Checker, hart: int, page: int, asid: int) -> Any:
    """Return the slot of the last fence of a page with this ASID (or ANY_ASID)."""
    return c.fenced[hart, (page ^ page >> 14 ^ asid * 0x9E5) & (FENCED - 1)]


@inner
def _last_page_fence(h: History, c: Checker, q: _Ask, asid: int) -> int:
    """Return the time of the last fence of the access's page with this ASID; 0 if there was none,
    -1 if it is not known."""
    slot = _fenced_slot(c, q.hart, q.va >> 12, asid)
    if slot.time == 0 or (slot.page == q.va >> 12 and slot.asid == asid):
        return slot.time  # type: ignore[no-any-return]
    return -1


@inner
def _last_fence(h: History, c: Checker, q: _Ask, kind: int, bits: int, after: int) -> int:
    """Return the time of the last fence by address that covers the access, but at least
    ``after``; NOW if it would need more fences than are kept."""
    asid = atp.asid(h.harts[q.hart].satp)
    if bits == pte.PAGE_BITS:
        any_asid = _last_page_fence(h, c, q, ANY_ASID)
        own = _last_page_fence(h, c, q, asid) if kind == _OWN else _wide(0)
        if any_asid >= 0 and own >= 0:
            return max(any_asid, own, after)
    last = after
    count = min(h.state.fences, h.fences.shape[0])
    for back in range(count):
        fence = h.fences[(h.state.fences - 1 - back) % h.fences.shape[0]]
        if fence.time <= last:
            return last
        if (
            fence.hart == q.hart
            and fence.first >> bits <= q.va >> bits <= fence.last >> bits
            and (fence.asid == ANY_ASID or (kind == _OWN and fence.asid == asid))
        ):
            last = max(last, fence.covers)
            if fence.time == last:
                return last  # type: ignore[no-any-return]
    if h.state.fences > count:
        c.state.doubt = 1
        return NOW
    return last


@inner
def _search(h: History, c: Checker, q: _Ask) -> None:
    """Put the worst translation that the hart may hold into ``best``."""
    c.best.kind = -1
    c.best.cost = NOW
    c.best.today = q.today
    c.state.raced = 0
    c.state.doubt = h.harts[q.hart].lost
    _search_more(h, c, q)


@inner
def _search_more(h: History, c: Checker, q: _Ask) -> None:
    """As :func:`_search`, on top of what was found before."""
    loaded = h.harts[q.hart].satp
    asid = atp.asid(loaded)
    c.state.states = 1
    at = h.first_space[q.hart, asid] - 1
    while at >= 0:
        space = h.spaces[q.hart, at]
        if space.since != NEVER:
            _walk_space(h, c, q, _Space(_wide(_OWN), space.satp), space.since, NOW)
        at = space.next
    c.state.states = 1
    for row in range(h.harts[q.hart].spaces):
        space = h.spaces[q.hart, row]
        end = c.ends[q.hart, row] if c.ends[q.hart, row] else _wide(NOW)
        absence = c.absences[q.hart, row]
        searched = _Space(_wide(_GLOBAL), space.satp)
        if absence.end:
            _walk_space(h, c, q, searched, space.since_all, absence.begin)
            c.state.states = 1
            _walk_space(h, c, q, searched, absence.end, end)
        else:
            _walk_space(h, c, q, searched, space.since_all, end)


@inner
def _walk_space(h: History, c: Checker, q: _Ask, space: _Space, since: int, limit: int) -> None:
    levels = atp.levels(atp.mode(space.satp))
    if not is_canonical(q.va, levels):
        return
    at = c.state.states
    root = c.states[0]
    root.level = levels - 1
    root.table = atp.root(space.satp)
    root.since = since
    root.is_global = 0
    root.stale = 0
    root.blame = 0
    root.asid = atp.asid(space.satp)
    root.limit = limit
    _read(h, c, q, space, 0)
    while at < c.state.states:
        _read(h, c, q, space, at)
        at += 1


@inner
def _read(h: History, c: Checker, q: _Ask, space: _Space, at: int) -> None:
    """Follow all values of the entry that translates the address in a reached table."""
    state = c.states[at]
    index = (q.va >> pte.level_bits(state.level)) & (pte.ENTRIES - 1)
    pa = state.table + index * 8
    if not holds(h.ram, pa):
        return
    table = c.tables[(pa - h.ram.base) >> 12]
    if table.reused and state.stale:
        if q.find < 0 and (space.kind == _OWN or state.is_global):
            unknown = _Held(pa, _wide(0), _wide(0), _wide(0), _wide(0), False)
            _offer(c, q, space, at, unknown, _FREED, -1)
        return
    _values(h, c, q, space, at, pa, False)
    if state.level == 0 and table.napot and not h.flags & NO_SVNAPOT:
        first = pa & ~(_NAPOT_ENTRIES * 8 - 1)
        for other in range(first, first + _NAPOT_ENTRIES * 8, 8):
            if other != pa:
                _values(h, c, q, space, at, other, True)


@inner
def _values(
    h: History, c: Checker, q: _Ask, space: _Space, at: int, pa: int, sibling: bool
) -> None:
    floor = c.states[at].since
    if c.states[at].level == 0 and h.newest[(pa - h.ram.base) >> 3]:
        # An entry that is stored to often, and fenced each time, has a long past that is over.
        doubt = c.state.doubt
        last = _last_fence(h, c, q, space.kind, _wide(pte.PAGE_BITS), floor)
        if last == NOW:
            c.state.doubt = doubt
        else:
            floor = last
    value = load(h.ram, pa)
    since = history.since_when(h, pa)
    # The page of a root that was freed was read as a table until something else was written to it.
    reused = c.tables[(pa - h.ram.base) >> 12].reused
    until = reused if reused else _wide(NOW)
    # A sibling counts only if it was replaced: if it is there now, the entries contradict each
    # other, which no fence could mend.
    if not sibling:
        _follow(h, c, q, space, at, _Held(pa, value, since, until, _wide(0), sibling))
    number = h.newest[(pa - h.ram.base) >> 3]
    while number:
        if not history.is_kept(h, number):
            if min(since, h.state.overwritten) > floor:
                c.state.doubt = 1
            return
        row = (number - 1) % h.records.shape[0]
        record = h.records[row]
        if record.until <= floor:
            return
        since = record.since
        by = number if c.stores[row].event >= 0 else _wide(0)
        held = _Held(pa, record.value, since, record.until, by, sibling)
        _follow(h, c, q, space, at, held)
        number = record.before


@inner
def _follow(h: History, c: Checker, q: _Ask, space: _Space, at: int, held: _Held) -> None:
    """Follow one value of an entry in a reached table."""
    state = c.states[at]
    level = state.level
    value = held.value
    outcome = outcome_of(value, level, q.va, q.access, q.priv, q.flags)
    outcome = _with_type(outcome, value)
    is_leaf = pte.is_leaf(value)
    if held.sibling and not (is_leaf and value & pte.N):
        return
    if outcome != POINTS_ON:
        if q.find >= 0 or outcome == q.today:
            return
        if outcome < 0 and (q.today < 0 or not c.state.legal):
            return
        if space.kind == _GLOBAL and not state.is_global and not (is_leaf and value & pte.G):
            return
    asking = _BY_ROOT if at == 0 else (_BY_ANY if state.is_global else _BY_ASID)
    end = min(held.until, state.limit)
    read = _first_read(h, c, q.hart, asking, space.satp, state.since, held.since, end)
    if read == NEVER:
        return
    if outcome == POINTS_ON:
        _reach(h, c, q, space, at, held, read)
        return
    if c.state.svvptc and not value & pte.V:
        return
    fenced = _last_fence(h, c, q, space.kind, pte.level_bits(level), read)
    if fenced > read and (
        fenced >= end or _first_loaded(h, c, q.hart, asking, space.satp, fenced, end) == NEVER
    ):
        return
    hazard = _classify(h, c, q, space, at, held, outcome)
    if hazard >= 0:
        _offer(c, q, space, at, held, hazard, outcome)


@inner
def _reach(h: History, c: Checker, q: _Ask, space: _Space, at: int, held: _Held, read: int) -> None:
    """Note the table that a value points to, unless a state that allows more has it.

    :param read: when a hart can first have read the value.
    """
    above = c.states[at]
    level = above.level - 1
    table = pte.target(held.value)
    is_global = above.is_global | _wide(held.value & pte.G != 0)
    stale = above.stale + _wide(held.by != 0)
    blame = above.blame if above.blame else held.by
    limit = above.limit
    if is_global and not above.is_global:
        # A pointer with G outlives the fences of the ASID.
        limit = NOW
    elif space.kind == _GLOBAL and not is_global and held.until != NOW:
        asking = _BY_ROOT if at == 0 else _BY_ASID
        last = _last_loaded(h, c, q.hart, asking, space.satp, held.until)
        limit = min(limit, _next_fence(c, q.hart, above.asid, last))
    if (
        table == q.find
        and stale
        and (space.kind == _OWN or is_global)
        and stale < c.best.cost
        and not _is_race(c, q, blame, space, level + 1, True)
    ):
        c.best.kind = _FREED
        c.best.cost = stale
        c.best.outcome = -1
        c.best.value = held.value
        c.best.level = level
        c.best.blame = blame
        c.best.pa = table
        c.best.satp = space.satp
        c.best.is_own = _wide(space.kind == _OWN)
        c.best.switched = 0
    for other in range(1, c.state.states):
        known = c.states[other]
        if (
            known.table == table
            and known.level == level
            and known.since <= read
            and known.is_global >= is_global
            and known.stale <= stale
            and known.limit >= limit
            and (known.asid == above.asid or known.is_global)
        ):
            return
    if c.state.states == c.states.shape[0]:
        c.state.doubt = 1
        return
    state = c.states[c.state.states]
    c.state.states += 1
    state.level = level
    state.table = table
    state.since = read
    state.is_global = is_global
    state.asid = above.asid
    state.stale = stale
    state.blame = blame
    state.limit = limit


@inner
def _classify(
    h: History, c: Checker, q: _Ask, space: _Space, at: int, held: _Held, outcome: int
) -> int:
    blame = c.states[at].blame if c.states[at].blame else held.by
    if blame == 0:
        if space.satp == h.harts[q.hart].satp:
            if q.before:
                return _PAGING_SWITCHED if outcome >= 0 else _PERMISSION_GAINED
            return -1
        if outcome < 0:
            return _PERMISSION_GAINED if held.value & pte.V else _MADE_VALID
        return _ASID_REUSED if space.kind == _OWN else _GLOBAL_DIFFERS
    old = h.records[(blame - 1) % h.records.shape[0]].value
    if outcome < 0:
        return _PERMISSION_GAINED if old & pte.V else _MADE_VALID
    if pte.is_link(old) and c.stores[(blame - 1) % h.records.shape[0]].level != 0:
        return _LINK_CHANGED
    if q.today >= 0:
        if (q.today ^ outcome) & PA_MASK:
            return _FRAME_CHANGED
        cacheable = q.today >> TYPE_SHIFT == 0 or outcome >> TYPE_SHIFT == 0
        return _MEMORY_TYPE if cacheable else _MEMORY_ORDER
    if q.today_ad == outcome:
        return _DIRTY_CLEARED if q.today_leaf & pte.A else _ACCESSED_CLEARED
    return _PERMISSION_LOST


@inner
def _is_covered(row: Any, q: _Ask, time: int, space: _Space, level: int, link: bool) -> bool:
    """Return True if a fence of the log would drop, on the hart that executes it, a translation
    that was replaced at ``time``."""
    if row.covers < time:
        return False
    if row.sub & _FORM_ASID and (space.kind == _GLOBAL or row.asid != atp.asid(space.satp)):
        return False
    bits = pte.level_bits(level)
    if row.sub & _FORM_VA:
        return not link and row.va >> bits <= q.va >> bits <= row.last >> bits
    return True


@inner
def _is_race(c: Checker, q: _Ask, blame: int, space: _Space, level: int, link: bool) -> bool:
    """Return True if another hart made the change and may still be about to see to the fence.

    That hart has gone on when it runs a program again or writes ``satp``.  It has also gone on when
    a fence that it called for has returned, or when its kernel did something else that is seen
    after a fence.
    """
    if blame == 0:
        return False
    store = c.stores[(blame - 1) % c.stores.shape[0]]
    if store.event < 0 or store.hart == q.hart:
        return False
    time = store.event + 1 + START
    progress = c.progress[store.hart]
    if progress.user > time:
        return False
    count = min(c.state.log, c.log.shape[0])
    for back in range(count):
        row = c.log[(c.state.log - 1 - back) % c.log.shape[0]]
        if row.time <= time:
            break
        own = row.caller < 0 and row.hart == store.hart and progress.kernel > row.time
        if (own or row.caller == store.hart) and _is_covered(row, q, time, space, level, link):
            return False
    c.state.raced = 1
    return True


@inner
def _is_fenced_elsewhere(c: Checker, q: _Ask) -> bool:
    """Return True if a fence would have covered what ``best`` needs, on another hart than that of
    the access."""
    store = c.stores[(c.best.blame - 1) % c.stores.shape[0]]
    if store.hart == q.hart:
        return False
    time = store.event + 1 + START
    space = _Space(_wide(_OWN) if c.best.is_own else _wide(_GLOBAL), c.best.satp)
    link = c.best.kind in (_LINK_CHANGED, _FREED)
    count = min(c.state.log, c.log.shape[0])
    for back in range(count):
        row = c.log[(c.state.log - 1 - back) % c.log.shape[0]]
        if row.time <= time:
            return False
        if row.hart != q.hart and _is_covered(row, q, time, space, c.best.level, link):
            return True
    return False


@inner
def _offer(
    c: Checker, q: _Ask, space: _Space, at: int, held: _Held, hazard: int, outcome: int
) -> None:
    """Take a translation as the worst one if it is worse, or needs fewer old entries."""
    state = c.states[at]
    cost = state.stale + _wide(held.by != 0)
    blame = state.blame if state.blame else held.by
    if blame == 0:
        cost = _wide(1)
    cost += q.before
    if hazard >= _MADE_VALID:
        cost += 1 << 20
    elif hazard in (_ACCESSED_CLEARED, _MEMORY_ORDER):
        cost += 1 << 10
    if cost >= c.best.cost:
        return
    link = hazard in (_LINK_CHANGED, _FREED)
    if _is_race(c, q, blame, space, state.level, link):
        return
    c.best.kind = hazard
    c.best.cost = cost
    c.best.outcome = outcome
    c.best.value = held.value
    c.best.level = state.level
    c.best.blame = blame
    c.best.pa = held.pa
    c.best.satp = space.satp
    c.best.is_own = _wide(space.kind == _OWN)
    c.best.switched = _wide(blame == 0 and q.before and space.satp == q.satp)


# -- following the stream --------------------------------------------------------------------------


@inner
def _page(h: History, pa: int) -> int:
    return (pa - h.ram.base) >> 12


@inner
def _linked(h: History, c: Checker, pa: int, value: int) -> None:
    """Note that an entry of a live table holds ``value`` now."""
    table = c.tables[_page(h, pa)]
    if value & pte.N:
        table.napot = 1
    target = pte.target(value)
    if table.level > 0 and pte.is_link(value) and holds(h.ram, target):
        index = (pa >> 3) & (pte.ENTRIES - 1)
        c.tables[_page(h, target)].prefix = table.prefix | index << pte.level_bits(table.level)


@inner
def _note_records(
    h: History,
    c: Checker,
    before: int,
    event: int,
    pc: int,
    hart: int,
    icount: int,
    pa: int,
    new: int,
) -> None:
    """Note which store made the records since ``before``; ``event`` -1: none did."""
    for number in range(before, h.state.records):
        row = c.stores[number % c.stores.shape[0]]
        row.event = event
        row.pc = pc
        row.hart = hart
        row.icount = icount
        row.pa = pa
        row.new = new
        row.level = c.tables[_page(h, pa)].level


@inner
def _site(c: Checker, pc: int, kind: int) -> int:
    """Return the place of a site; that of a free one if it is new, -1 if there is no room."""
    at = (pc * 31 + kind) & (SITES - 1)
    for _ in range(SITES):
        site = c.sites[at]
        if site.accesses == 0:
            return at if c.state.sites < SITES // 2 else -1
        if site.pc == pc and site.kind == kind:
            return at
        at = (at + 1) & (SITES - 1)
    return -1


@inner
def _blame(h: History, c: Checker, q: _Ask) -> int:
    """Count the hazard in ``best``; return its site if that is new, else -1."""
    kind = c.best.kind
    number = c.best.blame
    pc = _wide(-1)
    event = _wide(-1)
    if c.best.switched:
        pc, event = c.switches[q.hart].pc, c.switches[q.hart].time
    elif number:
        store = c.stores[(number - 1) % c.stores.shape[0]]
        pc, event = store.pc, store.event
    else:
        row = c.loads[q.hart, (c.loaded[q.hart] - 1) % c.loads.shape[1]]
        pc, event = row.pc, row.time
    owed = event + 1 + START if number and not c.best.switched else event
    link = kind in (_LINK_CHANGED, _FREED) or c.best.switched
    if number and not c.best.switched and kind < _MADE_VALID and _is_fenced_elsewhere(c, q):
        kind = _wide(_WRONG_HART)
        c.best.kind = kind
    at = _site(c, pc, kind)
    if kind < _MADE_VALID:
        c.state.hazards += 1
    if at < 0:
        c.state.doubt = 1
        return -1
    site = c.sites[at]
    is_new = site.accesses == 0
    site.accesses += 1
    if is_new or site.last != event:
        site.stores += 1
        site.last = event
    if not is_new:
        return -1
    site.pc = pc
    site.kind = kind
    site.waiting = 1
    site.hart = q.hart
    site.va = q.va
    site.bits = pte.level_bits(c.best.level)
    site.asid = atp.asid(c.best.satp) if c.best.is_own and not c.best.switched else ANY_ASID
    site.owed = owed
    site.link = _wide(link)
    c.order[c.state.sites] = at
    c.state.sites += 1
    c.state.waiting += site.waiting
    return at


@inner
def _spaces_fenced(h: History, c: Checker, hart: int, form: int, asid: int) -> None:
    """Note that pointers of spaces that are not loaded were dropped."""
    if form & _FORM_VA:
        return
    if not form & _FORM_ASID:
        c.ends[hart, 0] = 0
        c.absences[hart, 0].end = 0
        return
    at = h.first_space[hart, asid] - 1
    while at >= 0:
        if h.spaces[hart, at].satp != h.harts[hart].satp and c.ends[hart, at] == 0:
            c.ends[hart, at] = h.state.time
        at = h.spaces[hart, at].next


@inner
def _page_fenced(h: History, c: Checker, hart: int, form: int, va: int, asid: int) -> None:
    """Note when a page was fenced last."""
    if not form & _FORM_VA:
        return
    named = asid if form & _FORM_ASID else _wide(ANY_ASID)
    slot = _fenced_slot(c, hart, va >> 12, named)
    slot.page = va >> 12
    slot.asid = named
    slot.time = h.state.time
    c.progress[hart].pages = h.state.time


@inner
def _fenced(h: History, c: Checker, event: Event, pc: int, icount: int) -> None:
    """Follow a fence.  What ``sinval.vma`` drops is decided by ``sfence.inval.ir``."""
    form = event.sub & _FORM
    waits = c.state.ordered and event.sub & ~_FORM == _SINVAL_VMA
    number = c.state.log
    row = c.log[number % c.log.shape[0]]
    row.time = h.state.time
    row.hart = event.hart
    row.caller = -1
    row.sub = event.sub
    row.va = event.a
    row.last = event.a
    row.asid = event.b
    row.pc = pc
    row.icount = icount
    row.order = c.svinval[event.hart].ordered if waits else h.state.time
    row.covers = _wide(0) if waits else h.state.time
    c.state.log += 1
    if waits:
        if c.svinval[event.hart].first == 0:
            c.svinval[event.hart].first = number + 1
        return
    history.fenced(h, event.hart, form, event.a, event.b)
    _spaces_fenced(h, c, event.hart, form, event.b)
    _page_fenced(h, c, event.hart, form, event.a, event.b)
    _fence_came(c, event.hart, form, event.a, event.a, event.b, h.state.time, number)


@inner
def _remote_fenced(h: History, c: Checker, event: Event, pc: int, icount: int) -> None:
    """Follow a remote fence on each hart that it names."""
    asked = fence_of(event)
    form = asked.sub & _FORM
    first, last, asid = asked.first, asked.last, event.b
    covers = max(history.called(h, event.hart), START)
    for hart in range(h.harts.shape[0]):
        if not asked.harts >> hart & 1:
            continue
        number = c.state.log
        row = c.log[number % c.log.shape[0]]
        row.time = h.state.time
        row.hart = hart
        row.caller = event.hart
        row.sub = asked.sub
        row.va = first
        row.last = last
        row.asid = asid
        row.pc = pc
        row.icount = icount
        row.order = covers
        row.covers = covers
        c.state.log += 1
        if form & _FORM_VA:
            history.page_fenced(h, hart, form, first, last, asid, covers)
            _pages_invalidated(c, hart, form, first, last, asid, covers)
        else:
            _spaces_invalidated(h, c, hart, form, asid, covers)
        _fence_came(c, hart, form, first, last, asid, covers, number)


@inner
def _pages_invalidated(
    c: Checker, hart: int, form: int, first: int, last: int, asid: int, covers: int
) -> None:
    """Note when the pages of a range were fenced last."""
    page, end = first >> pte.PAGE_BITS, last >> pte.PAGE_BITS
    if end - page < FENCED:
        while page <= end:
            _page_invalidated(c, hart, form, page << pte.PAGE_BITS, asid, covers)
            page += 1
        return
    for at in range(FENCED):
        slot = c.fenced[hart, at]
        slot.page = _wide(NEVER)
        slot.time = max(slot.time, covers)


@inner
def _svinval_done(h: History, c: Checker, hart: int) -> None:
    """``sfence.inval.ir`` puts each ``sinval.vma`` before it in force: from now on, what it covers
    is as if it had been dropped at the ``sfence.w.inval`` before it."""
    first = c.svinval[hart].first - 1
    c.svinval[hart].first = 0
    if first < 0:
        return
    if c.state.log - first > c.log.shape[0]:
        # Some are not kept.  Drop everything, and say that nothing is known any more.
        history.fenced(h, hart, _wide(0), _wide(0), _wide(0))
        _spaces_fenced(h, c, hart, _wide(0), _wide(0))
        h.harts[hart].lost = 1
        return
    for number in range(first, c.state.log):
        row = c.log[number % c.log.shape[0]]
        if row.hart != hart or row.covers:
            continue
        row.covers = row.order
        form = row.sub & _FORM
        if form & _FORM_VA:
            history.page_fenced(h, hart, form, row.va, row.va, row.asid, row.covers)
            _page_invalidated(c, hart, form, row.va, row.asid, row.covers)
        else:
            _spaces_invalidated(h, c, hart, form, row.asid, row.covers)
        _fence_came(c, hart, form, row.va, row.va, row.asid, row.covers, number)


@inner
def _page_invalidated(c: Checker, hart: int, form: int, va: int, asid: int, covers: int) -> None:
    """Note when a page was fenced last, by a fence that may count from before others."""
    named = asid if form & _FORM_ASID else _wide(ANY_ASID)
    slot = _fenced_slot(c, hart, va >> 12, named)
    progress = c.progress[hart]
    if slot.time == 0 or (slot.page == va >> 12 and slot.asid == named):
        slot.page = va >> 12
        slot.asid = named
        slot.time = max(slot.time, covers)
    elif progress.pages <= covers:
        slot.page = va >> 12
        slot.asid = named
        slot.time = covers
    else:
        # There may be a later one of this page that the slot has forgotten.
        slot.page = _wide(NEVER)
    progress.pages = max(progress.pages, covers)


@inner
def _spaces_invalidated(
    h: History, c: Checker, hart: int, form: int, asid: int, covers: int
) -> None:
    """Follow a fence without an address that drops what was read before ``covers``."""
    total = c.loaded[hart]
    if total == 0:
        return
    unfenced = h.harts[hart].unfenced
    if not form & _FORM_ASID:
        now_on = history.set_of(h.harts[hart].paging)
        for number in range(history.PAGING_SETS):
            if c.settings[hart, number] <= covers:
                unfenced &= ~(1 << number) | now_on
    if c.loads[hart, (total - 1) % c.loads.shape[1]].time <= covers:
        # The space that is loaded was loaded then, too.
        at = _loaded_space(h, hart)
        since = since_all = covers
        # Fences that came later, and were in force at once, have dropped more.
        if at >= 0 and h.spaces[hart, at].since != NEVER:
            since = max(since, h.spaces[hart, at].since)
        if at >= 0 and h.spaces[hart, at].since_all != NEVER:
            since_all = max(since_all, h.spaces[hart, at].since_all)
        now = h.state.time
        h.state.time = covers
        history.fenced(h, hart, form, _wide(0), asid)
        _spaces_fenced(h, c, hart, form, asid)
        h.state.time = now
        at = _loaded_space(h, hart)
        if at >= 0 and h.spaces[hart, at].since == covers:
            h.spaces[hart, at].since = since
        if at >= 0 and h.spaces[hart, at].since_all == covers:
            h.spaces[hart, at].since_all = since_all
        h.harts[hart].unfenced = unfenced
        return
    h.harts[hart].unfenced = unfenced
    c.state.doubt = 0
    for at in range(h.harts[hart].spaces):
        space = h.spaces[hart, at]
        if form & _FORM_ASID and atp.asid(space.satp) != asid:
            continue
        end = h.state.time + 1
        if space.since != NEVER:
            begin = max(space.since, covers)
            space.since = _first_loaded(h, c, hart, _BY_ROOT, space.satp, begin, end)
        if form & _FORM_ASID:
            if space.since == NEVER and c.ends[hart, at] == 0:
                c.ends[hart, at] = covers
        elif space.since_all != NEVER:
            begin = max(space.since_all, covers)
            space.since_all = _first_loaded(h, c, hart, _BY_ROOT, space.satp, begin, end)
    if c.state.doubt:
        h.harts[hart].lost = 1


@inner
def _loaded_space(h: History, hart: int) -> int:
    """Return the row of the space that a hart has loaded; -1 if there is none."""
    satp = h.harts[hart].satp
    at = h.first_space[hart, atp.asid(satp)] - 1
    while at >= 0 and h.spaces[hart, at].satp != satp:
        at = h.spaces[hart, at].next
    return _wide(at)  # type: ignore[no-any-return]


@inner
def _space_loaded(h: History, c: Checker, hart: int, satp: int) -> None:
    if atp.mode(satp) == 0:
        return
    at = h.first_space[hart, atp.asid(satp)] - 1
    while at >= 0:
        if h.spaces[hart, at].satp == satp:
            absence = c.absences[hart, at]
            if h.spaces[hart, at].since_all == h.state.time:
                absence.end = 0
            elif c.ends[hart, at]:
                absence.begin = c.ends[hart, at]
                absence.end = h.state.time
            c.ends[hart, at] = 0
        at = h.spaces[hart, at].next


@inner
def _fence_came(
    c: Checker, hart: int, form: int, first: int, last: int, asid: int, covers: int, number: int
) -> None:
    """Note the first fence that covers what a site was waiting for; ``number``: it in the log."""
    if c.state.waiting == 0:
        return
    for at in range(c.state.sites):
        site = c.sites[c.order[at]]
        if not site.waiting or site.hart != hart or site.owed > covers:
            continue
        if form & _FORM_ASID and (site.asid == ANY_ASID or site.asid != asid):
            continue
        bits = site.bits
        is_near = first >> bits <= site.va >> bits <= last >> bits
        if form & _FORM_VA and (site.link or not is_near):
            continue
        site.waiting = 0
        site.late = number + 1
        c.state.waiting -= 1


@inner
def _paging_switched(h: History, c: Checker, event: Event, pc: int, icount: int) -> None:
    hart = h.harts[event.hart]
    paging = switched(hart.paging, event.b, event.c)
    if event.flags & _SAMPLE:
        # The region begins with it.
        hart.paging = paging
        hart.unfenced = history.set_of(paging)
        return
    if paging == hart.paging:
        return
    c.settings[event.hart, history.number_of(hart.paging)] = h.state.time
    history.paging_switched(h, event.hart, paging)
    row = c.switches[event.hart]
    row.time = h.state.time
    row.pc = pc
    row.icount = icount
    row.old = event.a
    row.new = event.b


@inner
def _flags(h: History, event: Event) -> int:
    return h.flags | h.harts[event.hart].paging | (event.flags & _RIGHTS)  # type: ignore[no-any-return]


@inner
def _walk(h: History, c: Checker, satp: int, va: int, event: Event, more: int) -> Walk:
    flags = _flags(h, event) | PROBE | more
    return walk1(h.ram, c.no_cache, satp, Request(va, event.sub, event.priv, flags), c.no_trace)


@inner
def _answer(walk: Walk) -> int:
    return _with_type(walk.pa if walk.cause == OK else -1 - walk.cause, walk.entry)


@inner
def _search_before(h: History, c: Checker, q: _Ask, event: Event, others: int) -> None:
    """Search with each of the sets of paging features that may still be used."""
    for number in range(history.PAGING_SETS):
        if others >> number & 1:
            flags = h.flags | history.paging_of(number) | (event.flags & _RIGHTS)
            before = _Ask(
                hart=q.hart,
                va=q.va,
                access=q.access,
                priv=q.priv,
                flags=flags,
                today=q.today,
                today_leaf=q.today_leaf,
                today_ad=q.today_ad,
                find=-1,
                before=1,
                satp=q.satp,
            )
            _search_more(h, c, before)


@inner
def _judge(h: History, c: Checker, event: Event) -> int:
    """Judge an access; return the place of a site that is new, else -1."""
    c.state.accesses += 1
    satp = h.harts[event.hart].satp
    if is_untranslated(satp, event.priv):
        return -1
    key = ((event.a >> 12) << 6 | event.hart) << 6
    key |= event.sub << 4 | (event.priv & 3) << 2 | (event.flags & _RIGHTS) >> 1
    slot = c.memo[((event.a >> 12) ^ (event.a >> 26) ^ event.sub << 10) & (MEMO - 1)]
    if slot[0] == key and slot[1] == c.state.epoch:
        return -1
    walk = _walk(h, c, satp, event.a, event, 0)
    today = _answer(walk)
    with_ad = today
    if today < 0:
        with_ad = _answer(_walk(h, c, satp, event.a, event, ADUE))
    q = _Ask(
        hart=event.hart,
        va=event.a,
        access=event.sub,
        priv=event.priv,
        flags=_flags(h, event),
        today=today,
        today_leaf=walk.entry,
        today_ad=with_ad,
        find=-1,
        before=0,
        satp=satp,
    )
    _search(h, c, q)
    others = h.harts[event.hart].unfenced & ~history.set_of(h.harts[event.hart].paging)
    if others:
        _search_before(h, c, q, event, others)
    if c.state.doubt:
        c.state.undecided += 1
    if c.best.kind < 0:
        if not c.state.doubt and not c.state.raced:
            slot[0] = key
            slot[1] = c.state.epoch
        return -1
    return _blame(h, c, q)


@inner
def _written(h: History, c: Checker, pa: int) -> int:
    """Note that a page that was a table is written to, or becomes another table; return a new site,
    or -1."""
    table = c.tables[_page(h, pa)]
    table.freed = 0
    table.reused = h.state.time
    c.state.epoch += 1
    for hart in range(h.harts.shape[0]):
        satp = h.harts[hart].satp
        levels = atp.levels(atp.mode(satp))
        if levels <= 0:
            continue
        unused = 64 - pte.level_bits(levels)
        va = table.prefix << unused >> unused
        page = pa >> 12 << 12
        flags = h.flags | h.harts[hart].paging
        q = _Ask(
            hart=_wide(hart),
            va=va,
            access=_READ,
            priv=_wide(1),
            flags=flags,
            today=-1,
            today_leaf=0,
            today_ad=-1,
            find=page,
            before=0,
            satp=satp,
        )
        _search(h, c, q)
        if c.best.kind == _FREED:
            new = _blame(h, c, q)
            if new >= 0:
                return new
    return -1


@inner
def _went_on(c: Checker, event: Event, time: int) -> None:
    """Note what a hart does that shows that it is done with what it did before."""
    kind = event.kind
    if event.flags & FLAG_STOP or kind in (_TABLE_ADD, _TABLE_ENTRY, _TABLE_DROP):
        return
    progress = c.progress[event.hart]
    if event.priv & 3 == _USER or kind == _SATP_WRITE:
        progress.user = time
    if kind in (_FENCE, _FENCE_ORDER, _REMOTE_FENCE, _MARK) or (
        kind == _PTE_WRITE and event.sub not in (_OTHER, _HARDWARE_AD)
    ):
        progress.kernel = time


@kernel
def consume(h: History, c: Checker, batch: EventBatch, first: int, start: int) -> int:
    """Consume from ``start`` on; ``first`` is the number in the stream of ``batch[0]``.

    Returns the index of the next event: after the batch, after an event with a hazard at a new
    site, or -1-index of the event that there is no room for.
    """
    is_several = h.harts.shape[0] > 1
    for i in range(start, batch.shape[0]):
        event = event_at(batch, i)
        kind = event.kind
        if is_several:
            history.acted(h, event, first + i + 1 + START)
            _went_on(c, event, first + i + 1 + START)
        if kind == _ACCESS:
            if event.flags & _SAMPLE:
                continue
            pa = event.b
            if (
                event.sub == _WRITE
                and pa >= 0
                and holds(h.ram, pa)
                and c.tables[_page(h, pa)].freed
                and _written(h, c, pa) >= 0
            ):
                c.state.found_at = i
                # The access itself is judged when we go on.
                return i
            if _judge(h, c, event) >= 0:
                c.state.found_at = i
                return i + 1
        elif kind == _PTE_WRITE:
            h.state.time = first + i + 1 + START
            c.state.epoch += 1
            if holds(h.ram, event.a):
                before = h.state.records
                history.pte_written(h, event.a, event.c)
                _note_records(
                    h, c, before, first + i, batch[i]["pc"], event.hart, batch[i]["icount"],
                    event.a, event.c,
                )  # fmt: skip
                _linked(h, c, event.a, event.c)
        elif kind == _FENCE:
            h.state.time = first + i + 1 + START
            _fenced(h, c, event, batch[i]["pc"], batch[i]["icount"])
        elif kind == _REMOTE_FENCE:
            h.state.time = first + i + 1 + START
            _remote_fenced(h, c, event, batch[i]["pc"], batch[i]["icount"])
        elif kind == _FENCE_ORDER:
            h.state.time = first + i + 1 + START
            if event.sub == _W_INVAL:
                c.svinval[event.hart].ordered = h.state.time
            else:
                _svinval_done(h, c, event.hart)
        elif kind == _SATP_WRITE:
            if not history.has_room(h, event.hart):
                return -1 - i
            h.state.time = first + i + 1 + START
            c.state.epoch += 1
            history.satp_written(h, event.hart, event.b)
            _space_loaded(h, c, event.hart, event.b)
            load_row = c.loads[event.hart, c.loaded[event.hart] % c.loads.shape[1]]
            load_row.time = h.state.time
            load_row.satp = event.b
            load_row.pc = batch[i]["pc"]
            load_row.icount = batch[i]["icount"]
            c.loaded[event.hart] += 1
        elif kind == _ENVCFG_WRITE:
            h.state.time = first + i + 1 + START
            c.state.epoch += 1
            _paging_switched(h, c, event, batch[i]["pc"], batch[i]["icount"])
        elif kind == _TABLE_ENTRY:
            history.table_entry(h, event.a, event.c)
            if holds(h.ram, event.a):
                _linked(h, c, event.a, event.c)
        elif kind == _TABLE_ADD:
            if not holds(h.ram, event.a):
                continue
            table = c.tables[_page(h, event.a)]
            c.state.epoch += 1
            before = h.state.records
            table.level = event.b
            if table.freed:
                # Nobody wrote to it, so it held its entries while it was no live table.
                h.pages[_page(h, event.a)].dropped = 0
            table.freed = 0
            table.reused = 0
            if event.sub & 1:
                table.prefix = 0
            history.table_added(h, event.a)
            _note_records(h, c, before, -1, -1, event.hart, -1, event.a, 0)
        elif kind == _TABLE_DROP:
            c.state.epoch += 1
            history.table_dropped(h, event.a)
            if holds(h.ram, event.a):
                c.tables[_page(h, event.a)].freed = 1
    return batch.shape[0]  # type: ignore[no-any-return]
