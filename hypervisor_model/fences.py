"""Which accesses depend on a fence that was not executed: the fence checker.

A hart may keep what it read from a page table until a fence covers it.  QEMU keeps nothing, so a
guest that forgets a fence runs well there and fails on hardware.  :class:`FenceChecker` follows a
stream of events and asks at each access: *is there a translation that a hart could still hold, and
that comes to something else than the tables do now?*  If so, the access is a hazard, and the store
that still owes its fence is to blame.

What a hart may hold, by the privileged specification ("SFENCE.VMA", "Virtual Address Translation
Process", "Svinval", "Svnapot", "Svvptc", "Svade"):

- A hart may read any entry that a walk from its ``satp`` reaches, at any moment and for any
  address, whether a program uses that address or not.  It may go on from an entry that it has
  read before.  So an old pointer to a table and a newer leaf may be combined.
- What it has read carries the ASID, not the root, and is used while that ASID is in ``satp``.
  What lies below an entry with G is used with every ASID.
- An entry can only have been read while it was in its table and ``satp`` led there.  Edits of a
  space that this hart has not loaded since the last fence need none.
- ``sfence.vma`` without operands drops everything of its hart; with an ASID alone all of that
  ASID that is not global; with an address only leaf entries that translate it; with both only
  those of the ASID that are not global.  A pointer to a table outlives every fence by address.
- After a switch of ``menvcfg.ADUE`` or ``PBMTE`` a hart may go on with the setting before, until a
  fence without operands.
- A remote fence is a fence of each hart that it names.  It comes at some time between the call and
  its return.
- ``sinval.vma`` drops nothing by itself.  From the next ``sfence.inval.ir`` of its hart on, what it
  names is as if it had been dropped at the last ``sfence.w.inval`` before it.  So stores between
  the two stay owed, and so does everything until ``sfence.inval.ir`` comes.

The kinds of hazards are :class:`~hypervisor_model.hazards.Hazard`.  An old entry that was not
valid, or allowed less, can only make an access fault that the guest has to expect anyway; these
kinds are legal and counted only on request.

Choices (ours):

- What another hart has changed is looked at when that hart has gone on: it runs a program again, or
  writes ``satp``; or a fence that it called for and that covers the change has returned; or its
  kernel does something that is seen after it has executed such a fence.  Before, the access of
  this hart is a race that a guest must expect in any case.
- A region of interest begins as after a fence of everything.
- The content of a page that is no table any more counts as unchanged until an access is seen to
  write to it.
- A change of the memory type alone (PBMT) between NC and IO counts less: "Svpbmt" says that
  accesses with both can only be ordered less strictly, while those of different cacheability may
  lose coherence.  PMA may stand for either, and is taken as cacheable.
- A NAPOT entry may have been cached for each page of its range, and a fence covers the page that
  it names.
- If several old entries lead to a wrong translation, the walk with the fewest of them counts, and
  of these entries the one nearest to the root.
- If hardware sets A and D (Svadu, ``menvcfg.ADUE``), old values of them are not looked at.
- Only a fence without operands covers a switch of ADUE or PBMTE.  The specification says that it
  suffices, and nothing of narrower ones.
- :class:`CheckerLimits` says how many replaced entries, fences and writes of ``satp`` are kept.  An
  access that would need more is counted as undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hypervisor_model import hazards
from hypervisor_model import walk_cache as caches
from hypervisor_model.events import EventBatch, Fence, Kind
from hypervisor_model.hazards import Checker, Hazard
from hypervisor_model.jit import unsigned
from hypervisor_model.legality import Limits, empty_history
from hypervisor_model.memory import GuestMemory
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.policy import own_events
from hypervisor_model.table_history import ANY_ASID, PAGING_SETS, START
from hypervisor_model.walk import trace_of

_ACCESS = int(Kind.ACCESS)
_FORM = int(Fence.FORM)
_FORM_VA = int(Fence.VA)
_FORM_ASID = int(Fence.ASID)


@dataclass(frozen=True)
class CheckerLimits:
    """How much is kept; all at least 1."""

    records: int = 1 << 18
    """Entries replaced, of all tables."""
    fences: int = 1 << 16
    """Fences by address, and fences of every form."""
    loads: int = 1 << 14
    """Writes of ``satp``, by hart."""


@dataclass(frozen=True)
class FenceSeen:
    """A fence of the stream."""

    event: int
    """Its number in the stream, from 0."""
    hart: int
    form: Fence
    """ALL, VA, ASID or VA_ASID."""
    instruction: Fence
    va: int | None
    """The address that it names (unsigned); None if it names none."""
    asid: int | None
    pc: int
    icount: int | None
    order: int
    """The number of the event that the stores before are ordered by: its own, or for ``sinval.vma``
    that of the last ``sfence.w.inval`` (-1: there was none)."""
    in_force: bool
    """False for ``sinval.vma`` without ``sfence.inval.ir`` after it."""
    caller: int | None = None
    """The hart that called for it (REMOTE_FENCE); None if the hart fenced by itself."""
    size: int = 0
    """Bytes that a remote fence covers from ``va`` on."""


@dataclass(frozen=True)
class Culprit:
    """The store, or the write of a register, that owes a fence."""

    event: int
    pc: int
    hart: int
    icount: int | None
    register: str | None
    """``satp``, ``menvcfg``; None for a store."""
    entry: int | None
    """PA of the entry; None for a register."""
    level: int | None
    old: int
    """The entry, the ``satp`` of the old space, or ``menvcfg`` (unsigned)."""
    new: int
    since: int
    """The number of the event from which on the old value was there; -1: from the beginning."""


@dataclass
class Finding:
    """A site whose store owed a fence when something depended on it, and the first such access."""

    kind: Hazard
    culprit: Culprit
    event: int
    """Number of the access in the stream, from 0."""
    access: np.void
    """The event itself.  For ``freed-reachable`` it may be what wrote to the page."""
    va: int
    """The address whose translation could be wrong (unsigned)."""
    today: int | None
    """What the tables say: a PA or ``fault_pa(cause)``; None if no address was accessed."""
    today_type: int | None
    """The memory type (PBMT) of that PA; None without a PA."""
    stale: int | None
    """What hardware could do instead; None if it depends on the page's new content."""
    stale_type: int | None
    """The memory type (PBMT) of that PA; None without a PA."""
    page_bits: int
    """log2 of the size of the page that the old entry translates."""
    asid: int | None
    """The ASID of the old translation; None if it is global."""
    satp: int
    """Of the hart that accessed (unsigned)."""
    fences: tuple[FenceSeen, ...]
    """The fences from when the old entry was made until the access, as far as they are kept."""
    is_link: bool = False
    """True if the old translation went through a pointer to a table that is not there any more, or
    depended on a switch; no fence by address covers it."""
    accesses: int = 1
    """Accesses that depended on a fence of this site."""
    stores: int = 1
    """Stores of this site that one of them depended on."""
    late: FenceSeen | None = None
    """The fence that covered the first store at last; None: it never came."""


class FenceChecker:
    """Finds the accesses of one stream that depend on a fence that was not executed.

    :param machine: what the stream comes from.
    :param legal: also count what the specification allows (:data:`LEGAL`).
    :param ordered: the stream has FENCE_ORDER events.  If it has not (traces before version 3),
        ``sinval.vma`` counts as ``sfence.vma``.
    :param limits: how much is kept.
    """

    def __init__(
        self,
        machine: MachineModel,
        *,
        legal: bool = False,
        ordered: bool = True,
        limits: CheckerLimits | None = None,
    ) -> None:
        self.machine = machine
        limits = limits or CheckerLimits()
        self._memory = GuestMemory(machine.ram_base, machine.ram_size)
        kept = Limits(records=limits.records, fences=limits.fences)
        # With Svvptc the history would not keep when an entry became valid.
        history = empty_history(machine, self._memory.ram, kept)
        self._history = history._replace(svvptc=0)
        # ADUE may be switched off later, and then they count.
        self._history.state.ignores_ad = 0
        self._checker = _empty(machine, legal, limits, self._history.spaces.shape)
        self.ordered = ordered
        self._checker.state.ordered = int(ordered)
        self._findings: dict[int, Finding] = {}
        self._late: dict[int, FenceSeen] = {}
        self._events = 0

    def feed(self, batch: EventBatch) -> None:
        """Consume ``batch``, which follows the one before.

        :raises ModelError: when it is no batch of events, or names a hart that the machine does not
            have.
        """
        batch = own_events(batch, self.machine).events
        at = 0
        while at < len(batch):
            known = int(self._checker.state.sites)
            reached = int(hazards.consume(self._history, self._checker, batch, self._events, at))
            if reached < 0:
                at = -1 - reached
                self._grow()
            else:
                if int(self._checker.state.sites) > known:
                    self._report(batch, int(self._checker.state.found_at))
                at = reached
        self._events += len(batch)
        self._note_late()

    @property
    def findings(self) -> list[Finding]:
        """All sites so far, in the order in which they were found."""
        found = []
        for place in self._checker.order[: self._checker.state.sites].tolist():
            finding, site = self._findings[place], self._checker.sites[place]
            finding.accesses = int(site.accesses)
            finding.stores = int(site.stores)
            finding.late = self._late.get(place)
            found.append(finding)
        return found

    @property
    def accesses(self) -> int:
        """Accesses looked at."""
        return int(self._checker.state.accesses)

    @property
    def hazards(self) -> int:
        """Accesses that depended on a missing fence, at all sites."""
        return int(self._checker.state.hazards)

    @property
    def undecided(self) -> int:
        """Accesses for which more history would have been needed than is kept."""
        return int(self._checker.state.undecided)

    def _report(self, batch: EventBatch, index: int) -> None:
        c, h = self._checker, self._history
        place = int(c.order[c.state.sites - 1])
        site, best = c.sites[place], c.best
        event = self._events + index
        access = batch[index].copy()
        number = int(best.blame)
        hart = int(site.hart)
        if best.switched:
            culprit = self._switch(hart)
        else:
            culprit = self._store(number) if number else self._load(hart, int(best.satp))
        today = stale = None
        if int(best.outcome) != -1:
            stale = int(best.outcome)
            if int(access["kind"]) == _ACCESS:
                today = int(best.today)
        self._findings[place] = Finding(
            kind=Hazard(int(best.kind)),
            culprit=culprit,
            event=event,
            access=access,
            va=unsigned(int(site.va)),
            today=_place(today),
            today_type=_type(today),
            stale=_place(stale),
            stale_type=_type(stale),
            page_bits=int(site.bits),
            asid=None if int(site.asid) == ANY_ASID else int(site.asid),
            satp=unsigned(int(h.harts[hart]["satp"])),
            fences=self._fences(culprit.since),
            is_link=bool(site.link),
        )

    def _store(self, number: int) -> Culprit:
        row = (number - 1) % len(self._checker.stores)
        store, record = self._checker.stores[row], self._history.records[row]
        return Culprit(
            event=int(store.event),
            pc=unsigned(int(store.pc)),
            hart=int(store.hart),
            icount=_known(store.icount),
            register=None,
            entry=unsigned(int(store.pa)),
            level=int(store.level),
            old=unsigned(int(record.value)),
            new=unsigned(int(store.new)),
            since=_event_at(int(record.since)),
        )

    def _load(self, hart: int, old: int) -> Culprit:
        c = self._checker
        row = c.loads[hart, (c.loaded[hart] - 1) % c.loads.shape[1]]
        return Culprit(
            event=_event_at(int(row.time)),
            pc=unsigned(int(row.pc)),
            hart=hart,
            icount=_known(row.icount),
            register="satp",
            entry=None,
            level=None,
            old=unsigned(old),
            new=unsigned(int(row.satp)),
            since=_event_at(int(row.time)),
        )

    def _switch(self, hart: int) -> Culprit:
        row = self._checker.switches[hart]
        return Culprit(
            event=_event_at(int(row["time"])),
            pc=unsigned(int(row["pc"])),
            hart=hart,
            icount=_known(row["icount"]),
            register="menvcfg",
            entry=None,
            level=None,
            old=unsigned(int(row["old"])),
            new=unsigned(int(row["new"])),
            since=_event_at(int(row["time"])),
        )

    def _fences(self, since: int) -> tuple[FenceSeen, ...]:
        c = self._checker
        found: list[FenceSeen] = []
        for number in range(int(c.state.log) - 1, max(-1, int(c.state.log) - 1 - len(c.log)), -1):
            fence = self._fence(number)
            if fence.event < since or len(found) == _FENCES_SHOWN:
                break
            found.append(fence)
        return tuple(reversed(found))

    def _fence(self, number: int) -> FenceSeen:
        row = self._checker.log[number % len(self._checker.log)]
        sub = int(row["sub"])
        return FenceSeen(
            event=_event_at(int(row["time"])),
            hart=int(row["hart"]),
            form=Fence(sub & _FORM),
            instruction=Fence(sub & ~_FORM),
            va=unsigned(int(row["va"])) if sub & _FORM_VA else None,
            asid=int(row["asid"]) if sub & _FORM_ASID else None,
            pc=unsigned(int(row["pc"])),
            icount=_known(row["icount"]),
            order=_event_at(int(row["order"])),
            in_force=bool(row["covers"]),
            caller=None if int(row["caller"]) < 0 else int(row["caller"]),
            size=int(row["last"]) - int(row["va"]) + 1 if int(row["caller"]) >= 0 else 0,
        )

    def _note_late(self) -> None:
        """Keep the fences that came late, before the ring forgets them."""
        c = self._checker
        for place in c.order[: c.state.sites].tolist():
            late = int(c.sites[place]["late"])
            if late and place not in self._late and late > int(c.state.log) - len(c.log):
                self._late[place] = self._fence(late - 1)

    def _grow(self) -> None:
        old = self._history.spaces
        rows = min(2 * old.shape[1], self._history.max_spaces)
        spaces = np.zeros((old.shape[0], rows), old.dtype)
        spaces[:, : old.shape[1]] = old
        self._history = self._history._replace(spaces=spaces)
        ends = np.zeros(spaces.shape, np.int64)
        ends[:, : old.shape[1]] = self._checker.ends
        absences = np.zeros(spaces.shape, hazards.ABSENCE)
        absences[:, : old.shape[1]] = self._checker.absences
        self._checker = self._checker._replace(ends=ends, absences=absences)


_FENCES_SHOWN = 1024


def _place(outcome: int | None) -> int | None:
    """Return the PA or ``fault_pa(cause)`` of what an access comes to."""
    return outcome if outcome is None or outcome < 0 else outcome & hazards.PA_MASK


def _type(outcome: int | None) -> int | None:
    return None if outcome is None or outcome < 0 else outcome >> hazards.TYPE_SHIFT


def _known(icount: Any) -> int | None:
    return None if int(icount) < 0 else int(icount)


def _event_at(time: int) -> int:
    """Return the number of the event at a time of the history; -1 for the time before all."""
    return max(time - START - 1, -1)


def _empty(
    machine: MachineModel, legal: bool, limits: CheckerLimits, spaces: tuple[int, ...]
) -> Checker:
    svinval = np.zeros(machine.harts, hazards.SVINVAL)
    svinval["ordered"] = START
    pages = machine.ram_size >> 12
    state = np.zeros(1, hazards.STATE)[0]
    state.legal = int(legal)
    state.svvptc = int(machine.svvptc)
    state.epoch = 1
    return Checker(
        stores=np.zeros(limits.records, hazards.STORE),
        log=np.zeros(limits.fences, hazards.LOG),
        loads=np.zeros((machine.harts, limits.loads), hazards.LOAD),
        loaded=np.zeros(machine.harts, np.int64),
        switches=np.zeros(machine.harts, hazards.SWITCH),
        settings=np.zeros((machine.harts, PAGING_SETS), np.int64),
        svinval=svinval,
        progress=np.zeros(machine.harts, hazards.PROGRESS),
        fenced=np.zeros((machine.harts, hazards.FENCED), hazards.PAGE_FENCE),
        ends=np.zeros(spaces, np.int64),
        absences=np.zeros(spaces, hazards.ABSENCE),
        tables=np.zeros(pages, hazards.TABLE),
        states=np.zeros(1 << 10, hazards.REACHED),
        best=np.zeros(1, hazards.BEST)[0],
        sites=np.zeros(hazards.SITES, hazards.SITE),
        order=np.zeros(hazards.SITES, np.int64),
        memo=np.zeros((hazards.MEMO, 2), np.int64),
        state=state,
        no_cache=caches.make(0),
        no_trace=trace_of(0),
    )
