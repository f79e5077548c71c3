"""The set of legal translations by its definition, from snapshots of everything at every moment.

Nothing here is taken from ``hypervisor_model`` but the layout of events: entries are judged by
:mod:`tests.hypervisor_model.reference_mmu`, and time is a list.  A guest is a :class:`Guest`: raw
memory with a few pages of tables, to which a test does things; it gives the events that a source
would, and the answers that are legal.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypervisor_model.events import ENVCFG_ADUE, Access, EventBatch, Fence, Kind, Order, Priv, empty
from hypervisor_model.jit import signed
from tests.hypervisor_model.reference_mmu import Hart, Memory, Outcome, translate

BASE = 0x8000_0000
SIZE = 16 << 20
PAGE = 4096
V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
N = 1 << 63
RESERVED = ((1 << 10) - 1) << 54
LEVELS = {8: 3, 9: 4, 10: 5}
NAMES = {Access.READ: "load", Access.WRITE: "store", Access.FETCH: "fetch"}
PAGE_FAULTS = {"fetch": 12, "load": 13, "store": 15}
KEPT = 1 << 40
"""Until when a value counts that an entry still holds."""


def link(page: int, bits: int = 0) -> int:
    return page >> 2 | V | bits


def is_link(entry: int, level: int) -> bool:
    return level > 0 and entry & (V | R | W | X | U | A | D | RESERVED) == V


def is_leaf(entry: int) -> bool:
    return bool(entry & V and entry & (R | X))


def target(entry: int) -> int:
    return (entry >> 10 & (1 << 44) - 1) << 12


def _place(out: Outcome) -> int:
    """PA, or -1-cause."""
    if out.cause is not None:
        return -1 - out.cause
    assert out.pa is not None
    return out.pa


def event(kind: Kind, **fields: int) -> EventBatch:
    one = empty(1)
    one["kind"] = kind
    for name, value in fields.items():
        one[name] = signed(value) if name in "abc" else value
    return one


@dataclass
class Moment:
    """After one action of the guest."""

    tables: dict[int, dict[int, int]]
    """Content of the live tables: page to index to entry; what is missing is 0."""
    satp: list[int]
    """By hart."""


@dataclass
class Ask:
    """An access."""

    hart: int
    va: int
    access: Access
    priv: Priv
    sum: bool = False
    mxr: bool = False


@dataclass
class Judged:
    """What a hart may answer (PA or -1-cause)."""

    today: int
    legal: set[int]
    doubt: bool
    """A walk may have met content that no event tells."""
    loose: bool = False
    """A remote fence came when the hart had loaded another space since its caller's last act.  Then
    the models may take any space that the hart ever had for one that it had since."""


@dataclass
class Guest:
    harts: int = 1
    svadu: bool = False
    svvptc: bool = False
    svpbmt: bool = False
    levels: dict[int, int] = field(default_factory=dict)
    """Level of each page that may serve as a table."""

    def __post_init__(self) -> None:
        self.raw: dict[int, dict[int, int]] = {page: {} for page in self.levels}
        self.roots: set[int] = set()
        self.satp = [0] * self.harts
        self.live: set[int] = set()
        self.fences: list[tuple[int, int, Fence, int, int, int]] = []
        """When and where, the form, the first and the last address, the ASID.  A moment at which
        a remote fence may have come is that of the last thing that its caller did before."""
        self.acted = [0] * self.harts
        self.loose = [False] * self.harts
        """See :class:`Judged`; True until the hart fences everything itself."""
        self.moments = [self._moment()]

    # -- what the guest does; each gives the events ---------------------------------------------

    def write_satp(self, hart: int, value: int) -> list[EventBatch]:
        events = [event(Kind.SATP_WRITE, a=self.satp[hart], b=value, hart=hart)]
        self.satp[hart] = value
        self.acted[hart] = len(self.moments)
        if value >> 60:
            self.roots.add((value & (1 << 44) - 1) << 12)
        return self._acted(events)

    def store(self, page: int, index: int, value: int) -> list[EventBatch]:
        old = self.raw[page].get(index, 0)
        self.raw[page][index] = value
        if page not in self.live:
            return []
        self.acted[0] = len(self.moments)
        return self._acted(
            [event(Kind.PTE_WRITE, a=page + 8 * index, b=old, c=value, size=8)],
        )

    def fence(
        self,
        hart: int,
        form: Fence,
        va: int = 0,
        asid: int = 0,
        instruction: Fence = Fence.SFENCE_VMA,
    ) -> list[EventBatch]:
        self.fences.append((len(self.moments), hart, form, va, va, asid))
        self.acted[hart] = len(self.moments)
        self.loose[hart] &= form != Fence.ALL
        return self._acted([event(Kind.FENCE, a=va, b=asid, sub=form | instruction, hart=hart)])

    def remote_fence(
        self, caller: int, harts: list[int], form: Fence, va: int, size: int, asid: int
    ) -> list[EventBatch]:
        """A fence on ``harts`` that came at some time since the caller's last act."""
        begin = self.acted[caller]
        for hart in harts:
            self.fences.append((begin, hart, form, va, va + size - 1, asid))
            spaces = {moment.satp[hart] for moment in self.moments[begin:]}
            self.loose[hart] |= not form & Fence.VA and len(spaces) > 1
        named = sum(1 << hart for hart in harts)
        fields = {"a": va, "b": asid, "c": size, "sub": form, "hart": caller, "harts": named}
        return self._acted([event(Kind.REMOTE_FENCE, **fields)])

    def order(self, hart: int, order: Order) -> list[EventBatch]:
        return self._acted([event(Kind.FENCE_ORDER, sub=order, hart=hart)])

    def switch(self, hart: int, adue: bool) -> list[EventBatch]:
        value = ENVCFG_ADUE * adue
        return self._acted([event(Kind.ENVCFG_WRITE, b=value, c=ENVCFG_ADUE, hart=hart)])

    def access(self, ask: Ask) -> EventBatch:
        flags = 2 * ask.sum + 4 * ask.mxr
        self.acted[ask.hart] = len(self.moments) - 1
        return event(
            Kind.ACCESS, a=ask.va, sub=ask.access, priv=ask.priv, hart=ask.hart, flags=flags
        )

    def _acted(self, events: list[EventBatch]) -> list[EventBatch]:
        reached = self._reachable()
        for page in sorted(reached - self.live):
            events.append(event(Kind.TABLE_ADD, a=page, b=self.levels[page]))
            events.extend(
                event(Kind.TABLE_ENTRY, a=page + 8 * index, c=entry)
                for index, entry in sorted(self.raw[page].items())
                if entry
            )
        events.extend(event(Kind.TABLE_DROP, a=page) for page in sorted(self.live - reached))
        self.live = reached
        self.moments.append(self._moment())
        return events

    def _reachable(self) -> set[int]:
        found = set()
        todo = list(self.roots)
        while todo:
            page = todo.pop()
            if page not in found:
                found.add(page)
                level = self.levels[page]
                links = (e for e in self.raw[page].values() if is_link(e, level))
                todo.extend(target(e) for e in links if target(e) in self.levels)
        return found

    def _moment(self) -> Moment:
        return Moment({page: copy.copy(self.raw[page]) for page in self.live}, self.satp[:])

    def today(self, ask: Ask) -> tuple[int, int | None]:
        """What the tables say: PA and memory type, or -1-cause and None."""
        words = {
            page + 8 * index: entry for page in self.live for index, entry in self.raw[page].items()
        }
        out = self._translate(ask, self.satp[ask.hart], words)
        return _place(out), out.leaf_type

    # -- what is legal --------------------------------------------------------------------------

    def judge(self, ask: Ask) -> Judged:
        satp = self.satp[ask.hart]
        now = len(self.moments) - 1
        words = {
            page + 8 * index: entry
            for page, table in self.moments[now].tables.items()
            for index, entry in table.items()
        }
        judged = Judged(self._outcome(ask, satp, words), set(), False, self.loose[ask.hart])
        judged.legal.add(judged.today)
        if satp >> 60 == 0:
            return judged
        asid = satp >> 44 & 0xFFFF
        for own in (True, False):
            begin = max(
                [0]
                + [
                    when
                    for when, hart, form, _, _, of in self.fences
                    if hart == ask.hart
                    and (form == Fence.ALL or (own and form == Fence.ASID and of == asid))
                ]
            )
            spaces: dict[int, int] = {}
            for when in range(begin, now + 1):
                spaces.setdefault(self.moments[when].satp[ask.hart], when)
            for space, since in spaces.items():
                if space >> 60 and (not own or space >> 44 & 0xFFFF == asid):
                    for found in self._walks(ask, own, space, since, judged):
                        judged.legal.add(found)
        return judged

    def _walks(self, ask: Ask, own: bool, space: int, since: int, judged: Judged) -> Iterator[int]:
        levels = LEVELS[space >> 60]
        width = 12 + 9 * levels
        if ask.va >> (width - 1) not in (0, (1 << (65 - width)) - 1):
            return
        root = (space & (1 << 44) - 1) << 12
        yield from self._below(ask, own, space, levels - 1, root, since, False, {}, judged)

    def _below(
        self,
        ask: Ask,
        own: bool,
        space: int,
        level: int,
        table: int,
        since: int,
        is_global: bool,
        path: dict[int, int],
        judged: Judged,
    ) -> Iterator[int]:
        index = ask.va >> (12 + 9 * level) & 511
        where = table + 8 * index
        if not BASE <= table < BASE + SIZE:
            if own:
                yield self._outcome(ask, space, path)
            return
        if any(table not in m.tables for m in self.moments[since:]) and (own or is_global):
            judged.doubt = True
        for first, last, value in self._held(table, index, since):
            if is_link(value, level):
                yield from self._below(
                    ask,
                    own,
                    space,
                    level - 1,
                    target(value),
                    first,
                    is_global or bool(value & G),
                    {**path, where: value},
                    judged,
                )
                continue
            if not own and not is_global and not (is_leaf(value) and value & G):
                continue
            if (
                not value & V
                and last != KEPT
                and (self.svvptc or self._is_forgotten(table, index, last))
            ):
                continue
            if self._is_fenced(ask, own, level, value, last, self._after(table, index, last)):
                continue
            yield self._outcome(ask, space, {**path, where: value})
        if level == 0:
            for other in range(index & ~15, (index & ~15) + 16):
                for _first, last, value in self._held(table, other, since):
                    napot = is_leaf(value) and value & N and value >> 10 & 15 == 8
                    if other == index or not napot or not (own or is_global or value & G):
                        continue
                    if not self._is_fenced(ask, own, 0, value, last, 0):
                        yield self._outcome(ask, space, {**path, where: value})

    def _held(self, table: int, index: int, since: int) -> list[tuple[int, int, int]]:
        """First and last moment and value of what the entry is known to have held."""
        runs: list[tuple[int, int, int]] = []
        before: int | None = None
        for when in range(since, len(self.moments)):
            page = self.moments[when].tables.get(table)
            value = None if page is None else page.get(index, 0)
            if value is not None:
                if value == before:
                    runs[-1] = (runs[-1][0], when, value)
                else:
                    runs.append((when, when, value))
            before = value
        if runs and runs[-1][1] == len(self.moments) - 1:
            runs[-1] = (runs[-1][0], KEPT, runs[-1][2])
        return runs

    def _after(self, table: int, index: int, last: int) -> int:
        """What the entry was next known to hold."""
        for moment in self.moments[last + 1 :] if last != KEPT else []:
            if table in moment.tables:
                return moment.tables[table].get(index, 0)
        return 0

    def _is_forgotten(self, table: int, index: int, last: int) -> bool:
        """Whether an entry that was not valid stayed so until its page ceased to be a table, which
        it became again later: the models do not keep that."""
        later = iter(self.moments[last + 1 :])
        for moment in later:
            if table not in moment.tables:
                return any(table in moment.tables for moment in later)
            if moment.tables[table].get(index, 0) & V:
                return False
        return False

    def _is_fenced(
        self, ask: Ask, own: bool, level: int, value: int, last: int, after: int
    ) -> bool:
        if level > 0 and not is_leaf(value) and is_link(after, level):
            return False
        bits = 12 + 9 * level
        asid = self.satp[ask.hart] >> 44 & 0xFFFF
        return any(
            when > last
            and hart == ask.hart
            and (form == Fence.VA or (own and form == Fence.VA_ASID and of == asid))
            and first >> bits <= ask.va >> bits <= last_va >> bits
            for when, hart, form, first, last_va, of in self.fences
        )

    def _outcome(self, ask: Ask, satp: int, words: dict[int, int]) -> int:
        return _place(self._translate(ask, satp, words))

    def _translate(self, ask: Ask, satp: int, words: dict[int, int]) -> Outcome:
        hart = Hart(
            Memory(BASE, SIZE, dict(words)),
            satp=satp,
            supervisor=ask.priv == Priv.S,
            sum=ask.sum,
            mxr_first=ask.mxr,
            adue=self.svadu,
            pbmte=self.svpbmt,
        )
        return translate(hart, ask.va, NAMES[ask.access])
