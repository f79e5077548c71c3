"""Which answers to an access are legal: the translations that a hart may still hold.

Several *parties* translate every access: the reference machine and each policy.  An answer that
equals today's walk of the guest's tables is **fresh**.  Another one is **stale but legal** if it
was valid in the guest's tables at some time since the last fence that covers it, and else
**illegal**: a bug in a model, the reference, the capture, or the guest (paging-models section 6).

What a hart may hold, by the privileged specification ("SFENCE.VMA", "Virtual Address Translation
Process", "Svinval", "Svnapot", "Svvptc"):

- Each entry that a walk reads may have been cached by itself, so that a result may combine an
  older non-leaf entry with a newer leaf, and the other way round.
- What was cached is tagged with the ASID, not with the root: after ``satp`` got another root with
  the same ASID, entries of both may be used until that ASID is fenced.  A write of ``satp`` orders
  nothing.  While ``satp`` is Bare, addresses are physical at once.
- A fence without operands forgets everything.  One with an ASID alone forgets all of that ASID
  but global mappings.  One with an address forgets only the leaf entry that translates it
  (superpages included), one with both only if that is not global.  An address that is none has
  no effect.  A fence concerns its own hart.  ``sinval.vma`` counts as ``sfence.vma``.
- An entry that was not valid may be cached, too, unless the machine has Svvptc: so "faults" is
  legal until the fence.  That the access must be allowed (kind, privilege, SUM, MXR, and with
  Svade the A and D bits) is asked of each old entry with the access's own rights.
- After ``menvcfg.ADUE`` or ``menvcfg.PBMTE`` was switched, an entry may be read as before, until a
  fence without operands.
- A NAPOT entry may have been cached for each page of its range.

What the specification leaves open (ours):

- A table counts from when its space was first loaded after the fence, even if ``satp`` did not
  pointed to it at each moment since.
- A fence by address orders a non-leaf entry that was not valid together with what replaced it: not
  if that is a pointer to a table.
- To a global mapping belong the entries above it: fences with an ASID leave them, too.
- If the MMU sets A and D (Svadu), they are not looked at.
- A region of interest begins as after a fence of everything.
- What a page that is no live table any more holds now cannot be known.  An answer that only such
  content could explain is **undecided**, as is one that would need history older than what is
  kept: at most ``Limits.records`` replaced entries, ``Limits.fences`` fences by address, and
  ``Limits.spaces`` values of ``satp`` a hart since the last fence of everything.  Memory is bounded
  by these and by the pages of RAM that ever were tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import table_history as history
from hypervisor_model import walk_cache as caches
from hypervisor_model.errors import ModelError
from hypervisor_model.events import FLAG_MXR, FLAG_SUM, Access, EventBatch, Fence, Kind, Priv
from hypervisor_model.isa import atp, pte
from hypervisor_model.jit import inner, kernel, record_of, unsigned
from hypervisor_model.memory import GuestMemory, Ram, holds, load, sparse
from hypervisor_model.mmu import Mmu, Status, Translation
from hypervisor_model.policies.event_fields import Event, event_at, fence_of
from hypervisor_model.policies.hart import PAGING, is_untranslated, switched
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.policy import OwnEvents, own_events
from hypervisor_model.table_history import History, Query
from hypervisor_model.walk import (
    ADUE,
    MAX_REFERENCES,
    OK,
    PBMTE,
    PROBE,
    Request,
    trace_of,
    untranslated,
    walk1,
)
from hypervisor_model.walk_cache import WalkCache

_TABLE_ADD = int(Kind.TABLE_ADD)
_TABLE_ENTRY = int(Kind.TABLE_ENTRY)
_TABLE_DROP = int(Kind.TABLE_DROP)
_PTE_WRITE = int(Kind.PTE_WRITE)
_FENCE = int(Kind.FENCE)
_REMOTE_FENCE = int(Kind.REMOTE_FENCE)
_SATP_WRITE = int(Kind.SATP_WRITE)
_ACCESS = int(Kind.ACCESS)
_ENVCFG_WRITE = int(Kind.ENVCFG_WRITE)
_FORM = int(Fence.FORM)
_RIGHTS = FLAG_SUM | FLAG_MXR

_FRESH, _STALE_LEGAL, _ILLEGAL, _UNDECIDED = range(4)
_ASIDS = atp.ASID_MASK + 1
_OFFSET = 4095
_LEAF_OR_LINK = pte.V | pte.R | pte.X


@dataclass(frozen=True)
class Limits:
    """How much is kept; all at least 1.

    :raises ModelError: when one is not.
    """

    records: int = 1 << 18
    """Entries replaced, of all tables."""
    fences: int = 1 << 16
    """Fences by address."""
    spaces: int = _ASIDS
    """Values of ``satp``, by hart, since its last fence of everything."""
    states: int = 1 << 10
    """Tables that one search may reach."""
    steps: int = 1 << 20
    """Replaced entries and fences that one search may look at."""
    findings: int = 20
    """Illegal answers that are kept whole; all are counted."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ModelError(f"legality: limit {name} is {value}; it must be at least 1")


@dataclass(frozen=True)
class Counts:
    """The answers of one party."""

    fresh: int
    stale_legal: int
    illegal: int
    undecided: int

    @property
    def compared(self) -> int:
        """All of them."""
        return self.fresh + self.stale_legal + self.illegal + self.undecided


@dataclass(frozen=True)
class PastEntry:
    """An entry on the path of a translation that once was."""

    level: int
    address: int
    value: int
    until: int | None
    """Number of the event that replaced it; None: it is still there."""


@dataclass(frozen=True)
class Illegal:
    """An illegal answer, with what is needed to see why."""

    event: int
    """Number of the ACCESS in the stream, from 0."""
    access: np.void
    """The event itself."""
    satp: int
    """Of the access's hart (unsigned)."""
    party: str
    answer: int
    """A PA, or ``fault_pa(cause)``."""
    today: Translation
    """By the guest's own tables as they were at the access."""
    origin: tuple[PastEntry, ...]
    """The path, root first, by which the loaded tables once led to the answer, whatever was
    fenced since; empty if they never did, as far as is kept."""


_MEMO = record_of("key", "satp", "links", "leaf", "entry", "page")
"""A walk of the tables as they are that has found a page: its address and rights, ``satp``, how
often links had changed, the address of the leaf, the leaf, and the page's physical address."""
_MEMOS = 1 << 10
_STATE = record_of("fresh", "links")
"""Accesses to which all parties had a fresh answer; how often entries that point to tables were
changed, counted from 1."""


class _Run(NamedTuple):
    """What the kernel needs besides the history."""

    state: NDArray[Any]
    """One record; see :data:`_STATE`."""
    counts: NDArray[np.int64]
    """(parties, 4), without the accesses to which all had a fresh answer."""
    verdicts: NDArray[np.int64]
    """(parties,): of the last access."""
    no_cache: WalkCache
    trace: NDArray[Any]
    """Of the last walk."""
    memo: NDArray[Any]
    """See :data:`_MEMO`."""


class LegalityTracker:
    """Judges the answers of several parties to every access of one stream.

    :param machine: what the stream comes from.
    :param parties: their names, in the order of the answers.
    :param limits: how much is kept.
    """

    def __init__(
        self, machine: MachineModel, parties: Sequence[str], limits: Limits | None = None
    ) -> None:
        self.machine = machine
        self.parties = tuple(parties)
        self.memory = GuestMemory(machine.ram_base, machine.ram_size)
        """The guest's tables after the last event."""
        self.findings: list[Illegal] = []
        """The first ``Limits.findings`` illegal answers."""
        self._limits = limits or Limits()
        self._history = empty_history(machine, self.memory.ram, self._limits)
        self._run = _Run(
            state=np.array([(0, 1)], _STATE),
            counts=np.zeros((len(self.parties), 4), np.int64),
            verdicts=np.zeros(len(self.parties), np.int64),
            no_cache=caches.make(0),
            trace=trace_of(MAX_REFERENCES),
            memo=np.zeros(_MEMOS, _MEMO),
        )
        self._events = 0

    def feed(self, batch: EventBatch | OwnEvents, answers: NDArray[np.int64]) -> None:
        """Consume ``batch`` in order, and judge what each party answered to its accesses.

        :param batch: the batch that follows the one before.
        :param answers: int64 of shape (parties, events of the batch).  For an ACCESS it holds a
            PA or ``fault_pa(cause)``; for other events it is not read.
        :raises ModelError: when ``batch`` is no batch of events or names a hart that the machine
            does not have, or when ``answers`` has another shape.
        """
        batch = own_events(batch, self.machine).events
        if answers.shape != (len(self.parties), len(batch)) or answers.dtype != np.int64:
            raise ModelError(
                f"answers of shape {answers.shape}, {answers.dtype}; expected int64 of "
                f"{len(self.parties)} parties x {len(batch)} events"
            )
        answers = np.ascontiguousarray(answers)
        at = 0
        while at < len(batch):
            stop = len(self.findings) < self._limits.findings
            reached = _consume(self._history, self._run, batch, answers, self._events, at, stop)
            if reached < 0:
                at = -1 - int(reached)
                self._grow()
            else:
                at = int(reached)
                if stop and at and batch["kind"][at - 1] == _ACCESS:
                    self._report(batch[at - 1], answers[:, at - 1], self._events + at - 1)
        self._events += len(batch)

    @property
    def counts(self) -> dict[str, Counts]:
        """What was judged so far, by party."""
        counts = self._run.counts.copy()
        counts[:, _FRESH] += self._run.state["fresh"]
        return {
            name: Counts(*(int(n) for n in row))
            for name, row in zip(self.parties, counts, strict=True)
        }

    @property
    def illegal(self) -> int:
        """Illegal answers so far, of all parties."""
        return int(self._run.counts[:, _ILLEGAL].sum())

    def _grow(self) -> None:
        old = self._history.spaces
        rows = min(2 * old.shape[1], self._limits.spaces)
        spaces = np.zeros((old.shape[0], rows), old.dtype)
        spaces[:, : old.shape[1]] = old
        self._history = self._history._replace(spaces=spaces)

    def _report(self, access: np.void, answers: NDArray[np.int64], event: int) -> None:
        """Keep what the parties with an illegal answer to the last access said."""
        for row in np.flatnonzero(self._run.verdicts == _ILLEGAL):
            if len(self.findings) < self._limits.findings:
                answer = int(answers[row])
                self.findings.append(
                    Illegal(
                        event=event,
                        access=access.copy(),
                        satp=unsigned(self._satp(access)),
                        party=self.parties[row],
                        answer=answer,
                        today=self._walk(access),
                        origin=self._origin(access, answer),
                    )
                )

    def _satp(self, access: np.void) -> int:
        return int(self._history.harts[access["hart"]]["satp"])

    def _walk(self, access: np.void) -> Translation:
        flags, machine = int(access["flags"]), self.machine
        paging = int(self._history.harts[access["hart"]]["paging"])
        status = Status(
            priv=Priv(int(access["priv"]) & 3),
            sum=bool(flags & FLAG_SUM),
            mxr=bool(flags & FLAG_MXR),
            adue=bool(paging & ADUE),
            pbmte=bool(paging & PBMTE),
            svnapot=machine.svnapot,
        )
        mmu = Mmu(self.memory, satp=self._satp(access), status=status)
        # The tables are those that the next accesses are judged by.
        return mmu.translate(int(access["a"]), Access(int(access["sub"])), probe=True)

    def _origin(self, access: np.void, answer: int) -> tuple[PastEntry, ...]:
        h = self._history
        if not _find_origin(h, np.array([access]), answer):
            return ()
        steps = [(h.work.pa, h.work.value, h.work.until)]
        at = h.work.at
        levels = [int(h.states[at].level)]
        while h.states[at].parent >= 0:
            state = h.states[at]
            steps.append((state.entry_pa, state.entry_value, state.entry_until))
            at = state.parent
            levels.append(int(h.states[at].level))
        path = (
            PastEntry(
                level=level,
                address=int(pa),
                value=unsigned(value),
                until=None if until == history.NOW else _event_at(int(until)),
            )
            for level, (pa, value, until) in zip(levels, steps, strict=True)
        )
        return tuple(path)[::-1]


def empty_history(machine: MachineModel, ram: Ram, limits: Limits) -> History:
    """Return the history of a machine before its first event; ``ram`` will hold its tables."""
    pages = machine.ram_size >> 12
    state = np.zeros(1, history.STATE)[0]
    state.time = history.START
    state.ignores_ad = machine.walk_flags & ADUE != 0
    harts = np.zeros(machine.harts, history.HART)
    harts["paging"] = machine.walk_flags & PAGING
    harts["unfenced"] = history.set_of(machine.walk_flags)
    return History(
        ram=ram,
        newest=sparse(machine.ram_size >> 3),
        pages=sparse(pages, 2).view(history.PAGE).reshape(pages),
        records=np.zeros(limits.records, history.RECORD),
        fences=np.zeros(limits.fences, history.FENCE),
        spaces=np.zeros((machine.harts, min(64, limits.spaces)), history.SPACE),
        first_space=np.zeros((machine.harts, _ASIDS), np.int64),
        harts=harts,
        state=state,
        states=np.zeros(limits.states + 1, history.REACHED),
        work=np.zeros(1, history.WORK)[0],
        flags=machine.walk_flags & ~PAGING,
        svvptc=int(machine.svvptc),
        max_spaces=limits.spaces,
        max_steps=limits.steps,
    )


def _event_at(time: int) -> int:
    """Return the number of the event at a time of the history."""
    return time - history.START - 1


@kernel
def _consume(
    h: History,
    run: _Run,
    batch: EventBatch,
    answers: NDArray[np.int64],
    first: int,
    start: int,
    stop: bool,
) -> int:
    """Consume from ``start`` on; ``first`` is the number in the stream of ``batch[0]``.

    Returns the index of the next event: after the batch, after an access with an illegal answer
    if ``stop``, or -1-index of the event that there is no room for.
    """
    is_several = h.harts.shape[0] > 1
    for i in range(start, batch.shape[0]):
        event = event_at(batch, i)
        kind = event.kind
        if kind == _ACCESS:
            if _judge(h, run, event, answers, i) and stop:
                if is_several:
                    history.acted(h, event, first + i + 1 + history.START)
                return i + 1
        elif kind == _PTE_WRITE:
            h.state.time = first + i + 1 + history.START
            _note_link(h, run, event.a)
            history.pte_written(h, event.a, event.c)
        elif kind == _FENCE:
            h.state.time = first + i + 1 + history.START
            history.fenced(h, event.hart, event.sub & _FORM, event.a, event.b)
        elif kind == _REMOTE_FENCE:
            h.state.time = first + i + 1 + history.START
            asked = fence_of(event)
            covers = history.called(h, event.hart)
            form = asked.sub & _FORM
            for hart in range(h.harts.shape[0]):
                if asked.harts >> hart & 1:
                    history.fenced_up_to(h, hart, form, asked.first, asked.last, event.b, covers)
        elif kind == _SATP_WRITE:
            if not history.has_room(h, event.hart):
                return -1 - i
            h.state.time = first + i + 1 + history.START
            history.satp_written(h, event.hart, event.b)
        elif kind == _ENVCFG_WRITE:
            h.state.time = first + i + 1 + history.START
            paging = switched(h.harts[event.hart].paging, event.b, event.c)
            history.paging_switched(h, event.hart, paging)
        elif kind == _TABLE_ENTRY:
            _note_link(h, run, event.a)
            history.table_entry(h, event.a, event.c)
        elif kind == _TABLE_ADD:
            run.state[0].links += 1
            history.table_added(h, event.a)
        elif kind == _TABLE_DROP:
            history.table_dropped(h, event.a)
        if is_several:
            history.acted(h, event, first + i + 1 + history.START)
    return batch.shape[0]  # type: ignore[no-any-return]


@inner
def _judge(h: History, run: _Run, event: Event, answers: NDArray[np.int64], i: int) -> bool:
    """Count what every party answered to an access; return True if an answer was illegal."""
    satp = h.harts[event.hart].satp
    translated = not is_untranslated(satp, event.priv)
    today = _today(h, run, event, satp) if translated else untranslated(event.a, event.sub)
    party = 0
    while party < answers.shape[0] and answers[party, i] == today:
        party += 1
    if party == answers.shape[0]:
        run.state[0].fresh += 1
        return False
    found = False
    for party in range(answers.shape[0]):
        answer = answers[party, i]
        if answer == today:
            verdict = _FRESH
        elif translated:
            verdict = _STALE_LEGAL + _search(h, event, answer)
        else:
            verdict = _ILLEGAL
        run.counts[party, verdict] += 1
        run.verdicts[party] = verdict
        found |= verdict == _ILLEGAL
    return found


@inner
def _today(h: History, run: _Run, event: Event, satp: int) -> int:
    """Return what a walk of the tables as they are comes to.

    Most walks were made before, and their result holds as long as no entry on the way has changed.
    The leaf is looked at.  Links are counted together when they change, because few ever do.
    """
    va = event.a
    paging = h.harts[event.hart].paging
    rights = event.sub << 6 | (event.priv & 3) << 4 | (event.flags & _RIGHTS) << 1
    key = va >> 12 << 8 | rights | history.number_of(paging)
    slot = run.memo[((va >> 12) ^ (va >> 22) ^ event.sub << 8) & (_MEMOS - 1)]
    if (
        slot.key == key
        and slot.satp == satp
        and slot.links == run.state[0].links
        and load(h.ram, slot.leaf) == slot.entry
    ):
        return slot.page | (va & _OFFSET)  # type: ignore[no-any-return]
    request = Request(va, event.sub, event.priv, _flags(h, event, paging) | PROBE)
    walk = walk1(h.ram, run.no_cache, satp, request, run.trace)
    if walk.cause != OK:
        return -1 - walk.cause
    slot.key = key
    slot.satp = satp
    slot.links = run.state[0].links
    slot.leaf = run.trace[walk.vs_refs - 1].address
    slot.entry = load(h.ram, slot.leaf)
    slot.page = walk.pa & ~_OFFSET
    return walk.pa


@inner
def _note_link(h: History, run: _Run, pa: int) -> None:
    """Note that an entry is stored to, if it points to a table."""
    if holds(h.ram, pa) and load(h.ram, pa) & _LEAF_OR_LINK == pte.V:
        run.state[0].links += 1


@inner
def _flags(h: History, event: Event, paging: int) -> int:
    return h.flags | paging | (event.flags & _RIGHTS)


@inner
def _query(h: History, event: Event, paging: int, answer: int) -> Query:
    flags = _flags(h, event, paging)
    return Query(event.hart, event.a, event.sub, event.priv, flags, answer)


@inner
def _search(h: History, event: Event, answer: int) -> int:
    """Search with the paging features that are on, then with those that may still be in use."""
    hart = h.harts[event.hart]
    verdict = history.search(h, _query(h, event, hart.paging, answer))
    others = hart.unfenced & ~history.set_of(hart.paging)
    number = 0
    while others and verdict != history.LEGAL and number < history.PAGING_SETS:
        if others >> number & 1:
            found = history.search(h, _query(h, event, history.paging_of(number), answer))
            if found != history.ILLEGAL:
                verdict = found
        number += 1
    return verdict


@kernel
def _find_origin(h: History, accesses: EventBatch, answer: int) -> bool:
    event = event_at(accesses, 0)
    if is_untranslated(h.harts[event.hart].satp, event.priv):
        return False
    return history.find_origin(h, _query(h, event, h.harts[event.hart].paging, answer))
