"""One stream from two sources: the plugin's events, with gdb's samples where they belong.

The plugin hears the recording of the run that gdb then re-executes.  So both tell the same story:
each event of one must be an event of the other, equal in every field except the instruction count,
which gdb does not show.  :class:`Merge` compares them as gdb advances.  The models get the plugin's
stream.  Samples (translations of addresses that the guest used where gdb stopped it) are inserted.

Some events are not in both sources:

- Accesses are the plugin's.  gdb sees those of the instructions that it steps; they become samples.
- Page faults of the guest, and events of virtual machines that the guest runs: gdb sees some of
  them.  The plugin must have seen each of these at the same place.
- Entries in which the MMU updated A or D, and entries that changed without a store, as when a
  device wrote there: each source finds them when it compares the tables with RAM, at other places
  than the other source.  They are not compared, and the plugin's are kept.
- Fences and writes of ``satp`` in text that gdb found too late: only the plugin sees them.  gdb's
  search for late text must have found their addresses; otherwise each of them is a difference.
  gdb notices at its next stop what such a write has left in ``satp``, and follows the new tables
  from there.  If that was not the only write since, tables may have come and gone that gdb does not
  know, so nothing behind it is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosim.trace import describe
from hypervisor_model.events import (
    FLAG_STOP,
    EventBatch,
    Kind,
    PteOp,
    of_virtual_machines,
    priv_name,
)
from hypervisor_model.isa import pte
from hypervisor_model.jit import unsigned

_CHUNK = 1 << 18
"""Events that are looked at and handed on at once, so that a long stream needs little memory."""
_SHOWN = 5
"""A difference is shown with this many events before it."""
_HARDWARE_AD = pte.A | pte.D
_FENCES = (Kind.FENCE, Kind.FENCE_ORDER)
_TABLES = (Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.TABLE_DROP)


@dataclass(frozen=True)
class Difference:
    """The first place where the sources differ."""

    equal: int
    """How many events were equal before it."""
    gdb: str | None
    """What gdb saw there; None if it saw nothing."""
    plugin: str | None
    """What the plugin saw there; None if it saw nothing."""
    fields: tuple[str, ...]
    """The fields that differ, if both saw something."""
    last_gdb: tuple[str, ...]
    last_plugin: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the difference as the result document shows it."""
        return {
            "event": self.equal,
            "gdb": self.gdb,
            "plugin": self.plugin,
            "fields": list(self.fields),
            "last_events": {"gdb": list(self.last_gdb), "plugin": list(self.last_plugin)},
        }


@dataclass
class Agreement:
    """How far the sources agree."""

    events: int
    """The plugin's events that gdb should see, too."""
    equal: int = 0
    """Those among them that gdb saw, equal in every field."""
    late: int = 0
    """Fences and writes of ``satp`` among them that gdb did not see, because it found their text
    too late."""
    difference: Difference | None = None

    @property
    def not_reached(self) -> int:
        """Those among them that gdb did not come to, or that lie behind a difference."""
        return self.events - self.equal - self.late

    def to_json(self) -> dict[str, Any]:
        """Return the agreement as the result document shows it."""
        return {
            "events": self.events,
            "equal": self.equal,
            "late": self.late,
            "not_reached": self.not_reached,
            "difference": None if self.difference is None else self.difference.to_json(),
        }


class Merge:
    """Compares gdb's events with the plugin's, and makes one stream of both.

    :param stream: all events of the plugin.  It may be a mapped file.
    :param labels: the labels of the plugin's marks, for texts.
    :param hardware_ad: the MMU updates A and D.  Then the value that a store replaced, and an entry
        of a table that becomes live, may differ in them: the sources read at different times.
    :param cut: the plugin was killed.  An event that it had seen only in part is not in its stream,
        so what gdb sees behind that stream's end is taken from gdb.
    """

    def __init__(
        self,
        stream: EventBatch,
        labels: Sequence[str] = (),
        *,
        hardware_ad: bool = False,
        cut: bool = False,
    ) -> None:
        self._stream = stream
        self._labels = dict(enumerate(labels))
        self._hardware_ad = hardware_ad
        self._cut = cut
        self._common = _common_positions(stream)
        self._next = 0
        """The first of the common events that gdb has not shown."""
        self._seen = 0
        """Where in the stream the last event that gdb has shown ends."""
        self._emitted = 0
        self._held: list[EventBatch] = []
        """Samples that belong before the next common event, and what only gdb saw of a plugin that
        was killed."""
        self._recent: deque[str] = deque(maxlen=_SHOWN)
        self._unseen: dict[int, int] = {}
        """Where a fence or write of ``satp`` that gdb did not see first stands, by its pc."""
        self._lost_by: int | None = None
        """The pc of the write of ``satp`` that explains the difference if its text was late."""
        self.agreement = Agreement(len(self._common))

    @property
    def differs(self) -> bool:
        """True from the first difference on."""
        return self.agreement.difference is not None

    @property
    def reached(self) -> int:
        """How many of the common events lie behind gdb."""
        return self._next

    def common(self) -> EventBatch:
        """Return all events that gdb should see."""
        return self._stream[self._common]

    def sites(self) -> set[int]:
        """Return where the plugin saw fences and writes of ``satp`` that gdb should see."""
        found: set[int] = set()
        for first in range(0, len(self._common), _CHUNK):
            piece = self._stream[self._common[first : first + _CHUNK]]
            executed = piece["flags"] & FLAG_STOP == 0
            at = piece["pc"][np.isin(piece["kind"], (*_FENCES, Kind.SATP_WRITE)) & executed]
            found.update(map(unsigned, np.unique(at).tolist()))
        return found

    def last_counts(self, count: int) -> set[int]:
        """Return the instruction counts of the last ``count`` events that gdb should see."""
        last = self._stream[self._common[-count:]]
        return {int(icount) for icount in last["icount"]}

    def expected(self) -> Any:
        """Return the event that gdb should see next; None if there is none."""
        if self._next == len(self._common):
            return None
        return self._stream[self._common[self._next]]

    def take(self, batch: EventBatch) -> Iterator[EventBatch]:
        """Take in what gdb saw; yield the merged events up to there.

        After a difference, what gdb saw is ignored.
        """
        if self.differs:
            return
        common = _is_common(batch)
        before: NDArray[np.int64] = np.cumsum(common) - common
        compared = np.flatnonzero(common)
        places = self._match(batch, compared)
        self._find_seen_in_part(batch, before, places)
        at = np.flatnonzero(batch["kind"] == Kind.ACCESS)
        samples = batch[at]
        samples["flags"] |= FLAG_STOP
        placed = before[at] < len(places)
        if len(places):
            self._seen = max(self._seen, int(places[-1]) + 1)
            earlier = np.concatenate([samples[:0], *self._held])
            self._held.clear()
            yield from self._emit(
                int(places[-1]) + 1,
                np.concatenate([earlier, samples[placed]]),
                np.concatenate(
                    [np.full(len(earlier), places[0]), places[before[at[placed]]]], dtype=np.int64
                ),
            )
        if not self.differs:
            rest = batch[np.sort(np.concatenate([at[~placed], compared[len(places) :]]))]
            rest["flags"][rest["kind"] == Kind.ACCESS] |= FLAG_STOP
            self._held.append(rest)

    def ahead(self) -> EventBatch | None:
        """Return the next large piece of the stream before the event that gdb should see next.

        Nothing that gdb may still see there changes it.  None if there is no large piece.
        """
        end = self._emitted + _CHUNK
        if end > self._next_place():
            return None
        piece = np.array(self._stream[self._emitted : end])
        self._emitted = end
        return piece

    def finish(self, *, at_end: bool, late_sites: Collection[int]) -> Iterator[EventBatch]:
        """Yield the rest of the plugin's events: gdb did not come to them.

        :param at_end: gdb has come to the end of the region, so it should have seen everything.
        :param late_sites: the addresses of the fences and writes of ``satp`` in text that gdb found
            too late.
        """
        if at_end and not self.differs:
            while (event := self.expected()) is not None and event["kind"] in _FENCES:
                self._pass_unseen(self._next + 1)
            if event is not None:
                self._differ(None, event)
                self._lost_by = self._unseen_satp()
        unexplained = [at for pc, at in self._unseen.items() if pc not in late_sites]
        if self._lost_by in late_sites:
            self.agreement.difference = None
        if unexplained and not self.differs:
            self._differ(None, self._stream[min(unexplained)])
        samples = np.concatenate([self._stream[:0], *self._held])
        self._held.clear()
        yield from self._emit(
            len(self._stream), samples, np.full(len(samples), self._next_place(), dtype=np.int64)
        )

    # -- comparison -----------------------------------------------------------------------------

    def _next_place(self) -> int:
        """Return where in the stream the next common event stands."""
        if self._next == len(self._common):
            return len(self._stream)
        return int(self._common[self._next])

    def _match(self, batch: EventBatch, indices: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return where in the stream each common event of gdb stands, up to a difference."""
        found = [np.empty(0, dtype=np.int64)]
        ours = self._comparable(batch[indices])
        done = 0
        while done < len(ours):
            places = self._common[self._next : self._next + len(ours) - done]
            theirs = self._comparable(self._stream[places])
            unequal = np.flatnonzero(ours[done : done + len(places)] != theirs)
            count = int(unequal[0]) if len(unequal) else len(places)
            found.append(places[:count])
            self._next += count
            self.agreement.equal += count
            done += count
            if done == len(ours) or (self._cut and self.expected() is None):
                break
            behind = self._behind_late_fences(ours[done])
            if behind is None:
                self._remember(batch[indices[:done]])
                self._differ(batch[indices[done]], self.expected())
                if self._comes_later(ours[done]):
                    self._lost_by = self._unseen_satp()
                return np.concatenate(found)
            self._pass_unseen(behind)
            if self._is_late_satp(ours[done], self.expected()):
                found.append(self._common[self._next : self._next + 1])
                self._adopt_place(ours[done:])
                self._pass_unseen(self._next + 1)
                done += 1
        self._remember(batch[indices])
        return np.concatenate(found)

    def _behind_late_fences(self, ours: Any) -> int | None:
        """Return which of the common events ``ours`` is, if only fences stand before it."""
        for number in range(self._next, len(self._common)):
            theirs = self._stream[self._common[number : number + 1]]
            if self._comparable(theirs)[0] == ours or self._is_late_satp(ours, theirs[0]):
                return number
            if theirs[0]["kind"] not in _FENCES:
                return None
        return None

    @staticmethod
    def _is_late_satp(ours: Any, theirs: Any) -> bool:
        """Return True if gdb has found in ``satp`` what the plugin saw written elsewhere."""
        alike = all(ours[name] == theirs[name] for name in ("kind", "a", "b", "sub", "hart"))
        return bool(alike and ours["kind"] == Kind.SATP_WRITE and ours["pc"] != theirs["pc"])

    def _adopt_place(self, ours: EventBatch) -> None:
        """Give the tables that gdb found with a late write of ``satp`` the place of that write."""
        behind = np.flatnonzero(~np.isin(ours["kind"][1:], _TABLES))
        tables = ours[1 : int(behind[0]) + 1 if len(behind) else len(ours)]
        for name in ("pc", "priv"):
            tables[name] = self.expected()[name]

    def _pass_unseen(self, number: int) -> None:
        """Pass the common events before ``number``, which gdb did not see."""
        for place in map(int, self._common[self._next : number]):
            self._unseen.setdefault(unsigned(int(self._stream[place]["pc"])), place)
        self.agreement.late += number - self._next
        self._next = number

    def _find_seen_in_part(
        self, batch: EventBatch, before: NDArray[np.int64], places: NDArray[np.int64]
    ) -> None:
        """Find the events of ``batch`` in the stream that gdb need not see, but has seen."""
        for index in np.flatnonzero(_is_seen_in_part(batch)):
            passed = int(before[index])
            if passed > len(places):
                return
            start = max(self._seen, int(places[passed - 1]) + 1 if passed else 0)
            end = int(places[passed]) if passed < len(places) else self._next_place()
            between = self._stream[start:end]
            ours = self._comparable(batch[index : index + 1])
            equal = np.flatnonzero(self._comparable(between) == ours)
            if not len(equal) and self._cut and end == len(self._stream):
                return
            if not len(equal):
                theirs = between[_is_seen_in_part(between)]
                self._differ(batch[index], theirs[0] if len(theirs) else None)
                return
            self._seen = start + int(equal[0]) + 1

    def _comparable(self, batch: EventBatch) -> EventBatch:
        comparable = batch.copy()
        comparable["icount"] = -1
        # Which process owns an address space is no part of what the guest does.
        comparable["c"][comparable["kind"] == Kind.SATP_WRITE] = 0
        if self._hardware_ad:
            comparable["b"][comparable["kind"] == Kind.PTE_WRITE] &= ~_HARDWARE_AD
            comparable["c"][comparable["kind"] == Kind.TABLE_ENTRY] &= ~_HARDWARE_AD
        return comparable

    def _differ(self, ours: Any, theirs: Any) -> None:
        if self.differs:
            return
        fields: tuple[str, ...] = ()
        if ours is not None and theirs is not None:
            names = [name for name in ours.dtype.names if name != "icount"]
            fields = tuple(name for name in names if ours[name] != theirs[name])
        before = self._common[max(0, self._next - _SHOWN) : self._next]
        self.agreement.difference = Difference(
            self.agreement.equal,
            None if ours is None else self._text(ours),
            None if theirs is None else self._text(theirs),
            fields,
            tuple(self._recent),
            tuple(self._text(event) for event in self._stream[before]),
        )

    def _unseen_satp(self) -> int | None:
        """Return the pc of the next write of ``satp`` if only fences stand before it."""
        for place in map(int, self._common[self._next :]):
            event = self._stream[place]
            if event["kind"] == Kind.SATP_WRITE:
                return unsigned(int(event["pc"]))
            if event["kind"] not in _FENCES:
                break
        return None

    def _comes_later(self, ours: Any) -> bool:
        """Return True if the plugin saw later what gdb saw or found here."""
        for start in range(self._next, len(self._common), _CHUNK):
            rest = self._stream[self._common[start : start + _CHUNK]]
            if ours["kind"] == Kind.SATP_WRITE:
                same = (rest["kind"] == Kind.SATP_WRITE) & (rest["b"] == ours["b"])
            else:
                same = self._comparable(rest) == ours
            if same.any():
                return True
        return False

    def _remember(self, batch: EventBatch) -> None:
        self._recent.extend(self._text(event) for event in batch[-_SHOWN:])

    def _text(self, event: Any) -> str:
        where = f"{describe.hexadecimal(int(event['pc']))} {priv_name(int(event['priv']))}"
        name = describe.kind_name(int(event["kind"]))
        return f"{name} {describe.details(event, self._labels)} at {where}"

    # -- what comes out -------------------------------------------------------------------------

    def _emit(
        self, end: int, samples: EventBatch, places: NDArray[np.int64]
    ) -> Iterator[EventBatch]:
        """Yield the stream up to ``end`` with ``samples``, each before the event at its place."""
        while self._emitted < end:
            first, last = self._emitted, min(self._emitted + _CHUNK, end)
            self._emitted = last
            count = int(np.searchsorted(places, last))
            piece = np.asarray(self._stream[first:last])
            yield np.insert(piece, places[:count] - first, samples[:count])
            samples, places = samples[count:], places[count:]
        if len(samples):
            yield samples


def _is_common(batch: EventBatch) -> NDArray[np.bool_]:
    """Return a mask of the events that both sources see."""
    apart = (batch["kind"] == Kind.ACCESS) | _is_seen_in_part(batch) | _is_found(batch)
    return ~apart  # type: ignore[no-any-return]


def _is_seen_in_part(batch: EventBatch) -> NDArray[np.bool_]:
    """Return a mask of the events of which gdb sees only some."""
    mask = (batch["kind"] == Kind.PAGE_FAULT) | of_virtual_machines(batch)
    return mask & (batch["kind"] != Kind.ACCESS)  # type: ignore[no-any-return]


def _is_found(batch: EventBatch) -> NDArray[np.bool_]:
    """Return a mask of the entries that were found changed without an instruction."""
    written = batch["kind"] == Kind.PTE_WRITE
    return written & np.isin(batch["sub"], (PteOp.HARDWARE_AD, PteOp.OTHER))  # type: ignore[no-any-return]


def _common_positions(stream: EventBatch) -> NDArray[np.int64]:
    """Return where in ``stream`` the events stand that both sources see."""
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(stream), _CHUNK):
        found.append(np.flatnonzero(_is_common(stream[start : start + _CHUNK])) + start)
    return np.concatenate(found)
