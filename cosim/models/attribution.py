"""What causes the exits and the TLB misses of each policy: functions, call sites, address spaces.

A policy says for each event how many exits and misses it had there.  An event has the pc of its
instruction, and it happened in an address space.  So each count belongs to a function, to one
instruction of it (a *site*), and to an address space.  Callers are not known, because no event has
the guest's stack.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cosim.capture.processes import Process
from cosim.models.address_spaces import OTHERS, AddressSpaces
from hypervisor_model.events import Access, EventBatch, Kind, Priv
from hypervisor_model.jit import unsigned

USER = "user programs"
"""Stands for all code in U-mode."""
ROWS = 20
"""Functions, sites and address spaces that are listed; the others are added up."""
STACKS = 100
"""Rows of ``stacks``."""

Lookup = Callable[[int], str | None]
"""Returns the symbol at an address, ``name+0x12``; None if there is none."""


class Counts(TypedDict):
    """Counts by policy; a policy that does not count all of them is missing."""

    exits: dict[str, int]
    misses: dict[str, int]


class FunctionRow(Counts):
    """Counts of one function; None stands for all other functions."""

    function: str | None
    """Its name; the address of the instruction if there is no symbol."""


class SiteRow(Counts):
    """Counts of one instruction and one kind of event; None stands for all others."""

    site: str | None
    """``function+0x12``, the address if there is no symbol, or :data:`USER`."""
    address: int | None
    """None for user programs."""
    event: str | None
    """``pte_write``, ``fence``, ``satp_write``, ``read``, ``write``, ``fetch`` ..."""


class SpaceRow(Counts):
    """Counts of one address space; None stands for all others."""

    space: str | None
    satp: int | None
    user: bool | None
    """True if user programs ran in it."""
    process: NotRequired[str | None]
    """The name of the process that owns it; None if it is not known.  Older results lack it."""
    pid: NotRequired[int | None]
    """The process id of that process."""


class StackRow(Counts):
    """Counts of one kind of event of one function in one address space."""

    space: str | None
    function: str | None
    event: str | None


class CausesDocument(TypedDict):
    """The part ``causes`` of a profile.  Rows are sorted by their largest share of any count."""

    functions: list[FunctionRow]
    sites: list[SiteRow]
    spaces: list[SpaceRow]
    stacks: list[StackRow]


class Kept(NamedTuple):
    """The policies whose counts are complete, by their column."""

    exits: dict[str, int]
    misses: dict[str, int]

    def counts(self, sums: NDArray[np.int64]) -> Counts:
        """Return the counts in ``sums``, which has one element for each column."""
        return Counts(
            exits={name: int(sums[at]) for name, at in self.exits.items()},
            misses={name: int(sums[at]) for name, at in self.misses.items()},
        )


_KEY = 3
"""Columns of a key: address space, place, event."""
_PLACE_OF_USER = 1
"""Stands for all of U-mode; no instruction is at an odd address."""
_PENDING = 1 << 16
"""Rows that are kept before equal keys are added up."""


class Causes:
    """Adds up the exits and misses of each policy by what caused them.

    :param columns: how many counts each event has: the exits of each policy, then the misses.
    :param harts: of the guest.
    """

    def __init__(self, columns: int, harts: int = 1) -> None:
        self._columns = columns
        self._spaces = AddressSpaces(harts)
        self._keys = [np.zeros((0, _KEY), np.int64)]
        self._sums = [np.zeros((0, columns), np.int64)]

    def feed(self, batch: EventBatch, taken: NDArray[np.int64], where: NDArray[np.int64]) -> None:
        """Add a batch.

        :param taken: one row for each column, one element for each event of ``where``.
        :param where: the indices of the events that have a count, in order.
        """
        spaces = self._spaces.feed(batch, where)
        if not len(where):
            return
        batch, keys = batch[where], np.empty((len(where), _KEY), np.int64)
        keys[:, 0] = spaces
        keys[:, 1] = np.where(batch["priv"] == Priv.U, _PLACE_OF_USER, batch["pc"])
        keys[:, 2] = event_codes(batch)
        keys, sums = _added_up(keys, taken.T)
        self._keys.append(keys)
        self._sums.append(sums)
        if sum(map(len, self._keys[1:])) > max(_PENDING, len(self._keys[0])):
            self._compact()

    def _compact(self) -> None:
        keys, sums = _added_up(np.concatenate(self._keys), np.concatenate(self._sums))
        self._keys, self._sums = [keys], [sums]

    def totals(self) -> NDArray[np.int64]:
        """Return the sum of each column."""
        return np.sum([sums.sum(axis=0) for sums in self._sums], axis=0)  # type: ignore[no-any-return]

    def document(
        self,
        kept: Kept,
        lookup: Lookup | None,
        rows: int = ROWS,
        processes: Mapping[int, Process] | None = None,
    ) -> CausesDocument:
        """Return what was added up.

        :param kept: the policies whose counts are complete.
        :param lookup: names the addresses of the kernel; None: nothing does.
        :param rows: lists at most this many functions, sites and address spaces.
        :param processes: the processes, by the number in SATP_WRITE events.
        """
        self._compact()
        processes = processes or {}
        keys, sums = self._keys[0], self._sums[0]
        places, place_of = np.unique(keys[:, 1], return_inverse=True)
        sites = [_site(place, lookup) for place in places.tolist()]
        functions = [_function(site) for site in sites]
        names = [functions[at] for at in place_of.tolist()]
        spaces, codes = keys[:, 0].tolist(), keys[:, 2].tolist()
        events = [EVENT_NAMES.get(code, "access") for code in codes]

        def grouped(groups: Sequence[Hashable], most: int) -> Iterator[tuple[Any, Counts]]:
            return _largest(groups, sums, kept, most)

        return CausesDocument(
            functions=[FunctionRow(function=key, **counts) for key, counts in grouped(names, rows)],
            sites=[
                SiteRow(
                    site=None if key is None else sites[key[0]],
                    address=None if key is None else _address(int(places[key[0]])),
                    event=None if key is None else key[1],
                    **counts,
                )
                for key, counts in grouped([*zip(place_of.tolist(), events, strict=True)], rows)
            ],
            spaces=[
                self._space_row(key, counts, processes) for key, counts in grouped(spaces, rows)
            ],
            stacks=[
                StackRow(
                    space=None if key is None else self._spaces.name(key[0], processes),
                    function=None if key is None else key[1],
                    event=None if key is None else key[2],
                    **counts,
                )
                for key, counts in grouped([*zip(spaces, names, events, strict=True)], STACKS)
            ],
        )

    def _space_row(
        self, space: int | None, counts: Counts, processes: Mapping[int, Process]
    ) -> SpaceRow:
        spaces = self._spaces
        if space is None:
            return SpaceRow(space=None, satp=None, user=None, process=None, pid=None, **counts)
        owner = spaces.owner(space, processes)
        return SpaceRow(
            space=spaces.name(space, processes),
            satp=None if space == OTHERS else spaces.satps[space],
            user=spaces.has_user(space),
            process=None if owner is None else owner.name,
            pid=None if owner is None else owner.pid,
            **counts,
        )


_ACCESSES = max(Kind) + 1
"""Codes of events: the kind, and for accesses this plus the kind of access."""
EVENT_NAMES: dict[int, str] = {
    **{int(kind): kind.name.lower() for kind in Kind},
    **{_ACCESSES + int(access): access.name.lower() for access in Access},
}
"""What an event is called, by its code."""


def event_codes(batch: EventBatch) -> NDArray[np.int64]:
    """Return the key in :data:`EVENT_NAMES` of each event."""
    kind = batch["kind"].astype(np.int64)
    return np.where(kind == Kind.ACCESS, _ACCESSES + batch["sub"].astype(np.int64), kind)


def _added_up(
    keys: NDArray[np.int64], sums: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each key once, in order, with the sum of its rows."""
    if not len(keys):
        return keys, sums
    order = np.lexsort(keys.T[::-1])
    keys = keys[order]
    first = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    return keys[first], np.add.reduceat(sums[order], first, axis=0)


def _largest(
    groups: Sequence[Hashable], sums: NDArray[np.int64], kept: Kept, most: int
) -> Iterator[tuple[Any, Counts]]:
    """Yield the groups with the largest share of any count, then (as None) the sum of the rest."""
    names = list(dict.fromkeys(groups))
    numbers = {name: number for number, name in enumerate(names)}
    by_group = np.zeros((len(names), sums.shape[1]), np.int64)
    np.add.at(by_group, [numbers[group] for group in groups], sums)
    columns = [*kept.exits.values(), *kept.misses.values()]
    totals = np.maximum(by_group.sum(axis=0), 1)
    shares = (by_group / totals)[:, columns].max(axis=1, initial=0)
    order = sorted(range(len(names)), key=lambda at: (-shares[at], str(names[at])))
    order = [at for at in order if shares[at] > 0]
    for at in order[:most]:
        yield names[at], kept.counts(by_group[at])
    if order[most:]:
        yield None, kept.counts(by_group[order[most:]].sum(axis=0))


def _address(place: int) -> int | None:
    return None if place == _PLACE_OF_USER else unsigned(place)


def _site(place: int, lookup: Lookup | None) -> str:
    address = _address(place)
    if address is None:
        return USER
    symbol = None if lookup is None else lookup(address)
    return f"{address:#x}" if symbol is None else symbol


def _function(site: str) -> str:
    return site.rpartition("+0x")[0] or site
