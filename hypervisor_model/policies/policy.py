"""What all policies share on the Python side: their registry, feeding batches, giving results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import tlb as tlbs
from hypervisor_model.errors import ModelError, UsageError
from hypervisor_model.events import (
    EVENT,
    EventBatch,
    Kind,
    of_virtual_machines,
    show_virtual_machine,
    small_fields,
)
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.isa.atp import MODE_SHIFT, Mode
from hypervisor_model.jit import unsigned
from hypervisor_model.policies.hart import COUNTERS, REFS_G, REFS_VS, Hardware
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import NoOptions, parse

_MODES = frozenset(int(mode) for mode in Mode)

Accesses = Literal["all", "partial", "none"]

ANSWER, EXITS, MISSES = range(3)
"""Rows of what a kernel gives for each event: the translation of an ACCESS; the exits taken; the
TLB misses."""

_HARDWARE = ("tlb_misses", "tlb_hits", "tlb_displaced", "walk_refs", "walk_cache_hits")
"""Counts of the hart's own, by their names in a result."""
_NO_ACCESSES = "needs accesses; the stream has none"
_PART = "only of the part that was stepped, as if nothing had run between its pieces"
_OWN = "without what virtual machines of the guest's own do (V=1), as if they had not run"


@dataclass(frozen=True)
class Stream:
    """How complete the events of a source are (a counter that needs more is null)."""

    accesses: Accesses = "all"
    page_faults: bool = True
    """True if the guest's own faults are there, as PAGE_FAULT or as failing ACCESS events."""
    filter: int = 0
    """Slots of the filter that the accesses have passed; 0: there was none."""


@dataclass(frozen=True)
class PolicyResult:
    """Counts of one policy; None stands for a count that could not be measured."""

    exits: dict[Exit, int | None]
    """The kinds that the policy can have."""
    tlb_misses: int | None
    tlb_hits: dict[str, int | None] | None
    """``data``, ``fetch`` (first level) and ``second``."""
    tlb_displaced: int | None
    """Guest entries that hypervisor code displaced."""
    walk_refs: dict[str, int] | None
    """References of hardware walks: ``vs`` (the only stage, or the first) and ``g``."""
    walk_cache_hits: int | None
    """Walks that a page-walk cache shortened; None if there is none."""
    counters: dict[Counter, int | None]
    """The further counters that the policy has."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a count is None, or what it covers if that is less than the run, by its name in
    :meth:`to_json`."""

    @property
    def at_least(self) -> int:
        """Sum of the exits that were counted."""
        return sum(n for n in self.exits.values() if n is not None)

    @property
    def total(self) -> int | None:
        """All exits; None if a kind could not be counted, or only in part."""
        return None if "exits.total" in self.reasons else self.at_least

    def to_json(self) -> dict[str, Any]:
        """Return the policy's part of the result document (docs/architecture.md, "Results")."""
        kinds = {kind.key: count for kind, count in self.exits.items()}
        return {
            "exits": {"total": self.total, "at_least": self.at_least, **kinds},
            "tlb_misses": self.tlb_misses,
            "tlb_hits": self.tlb_hits,
            "tlb_displaced": self.tlb_displaced,
            "walk_refs": self.walk_refs,
            "walk_cache_hits": self.walk_cache_hits,
            **{counter.key: count for counter, count in self.counters.items()},
            "reasons": dict(self.reasons),
        }


class Colour(NamedTuple):
    """A colour of reports, as ``#rrggbb``."""

    light: str
    """On light paper."""
    dark: str
    """On dark paper."""


class Policy(ABC):
    """One policy over one stream; see docs/architecture.md, "Policies".

    A policy is one file: a class with :func:`register` above it, its options and its kernels.  The
    class says what exits and counters it has, and which of these need every access to be in the
    stream; :meth:`_consume` calls the kernel that consumes a batch.
    """

    name: ClassVar[str]
    """What users call the policy."""
    label: ClassVar[str]
    """What reports call the policy in words."""
    colour: ClassVar[Colour]
    """The colour that reports give it."""
    place: ClassVar[int] = 1000
    """Its place in lists: low numbers first, equal ones by name."""
    options: ClassVar[type[Any]] = NoOptions
    """The dataclass of its options (:mod:`hypervisor_model.policies.options`)."""
    kinds: ClassVar[tuple[Exit, ...]]
    """The kinds of exit that it can have."""
    extra: ClassVar[tuple[Counter, ...]] = ()
    """What it counts besides."""

    def __init__(self, machine: MachineModel, stream: Stream, hardware: Hardware) -> None:
        """Begin with empty tables.

        A policy's own class takes ``machine``, its options and ``stream``, in this order.
        """
        self.machine = machine
        self.stream = stream
        self.hardware = hardware
        """What the hardware holds; kernels change it."""
        self._left_out = False
        self.exits_taken: NDArray[np.int64] = np.zeros(0, np.int64)
        """The exits that each event of the last batch has caused, of all kinds."""
        self.misses_taken: NDArray[np.int64] = np.zeros(0, np.int64)
        """The TLB misses of each event of the last batch; only an ACCESS has any."""

    def feed(self, batch: EventBatch | OwnEvents) -> NDArray[np.int64]:
        """Consume ``batch`` in order.

        Returns one int64 an event: for an ACCESS the policy's effective translation (a PA, or
        :func:`~hypervisor_model.events.fault_pa` of the fault that the guest would see), else 0.

        :raises ModelError: when it is not a batch of events, or names a hart that the machine does
            not have.
        """
        own = own_events(batch, self.machine)
        self._left_out |= own.lacks_virtual_machine
        answers = np.zeros((3, len(own.events)), np.int64)
        at = 0
        while at < len(own.events):
            at = self._consume(own.events, at, answers)
            if at < len(own.events):
                self._grow()
        translations, self.exits_taken, self.misses_taken = answers
        return translations

    @abstractmethod
    def _consume(self, batch: EventBatch, start: int, answers: NDArray[np.int64]) -> int:
        """Consume from ``start`` on; the index that was not consumed because there was no room.

        ``answers`` has the rows :data:`ANSWER`, :data:`EXITS` and :data:`MISSES`, with a column for
        each event.
        """

    def _grow(self) -> None:
        """Make room for what was not consumed; a policy without a pool always consumes all."""
        raise AssertionError(f"{self.name} has nothing to grow")

    def _access_bound(self) -> Iterable[Exit | Counter]:
        """Return what cannot be counted if accesses are missing.

        These are the fills, and what depends on which entries they filled.
        """
        fills = (Exit.SHADOW_FILL, Exit.DIRTY_FILL, Exit.GSTAGE_FAULT)
        traps = (Counter.SINVAL, Counter.ROOT_HITS)
        return [
            *(kind for kind in self.kinds if kind in fills),
            *(counter for counter in self.extra if counter not in traps),
        ]

    def _uncounted(self) -> dict[str, str]:
        """Why an exit or a counter cannot be counted from this stream, by its key."""
        if self.stream.accesses != "none":
            return {}
        # By name: an Exit and a Counter of the same number are equal.
        return {bound.key: _NO_ACCESSES for bound in self._access_bound()}

    def result(self) -> PolicyResult:
        """Return the counts so far."""
        result = self._counts()
        return _of_own_only(result) if self._left_out else result

    def _can_be_called(self) -> bool:
        """Return True if the guest has several harts, or called for a remote fence all the same."""
        return self.machine.harts > 1 or bool(self.hardware.counts[Exit.REMOTE_FENCE])

    def _counts(self) -> PolicyResult:
        seen = self.stream.accesses != "none"
        reason = _NO_ACCESSES
        reasons: dict[str, str] = {}
        missing = self._uncounted()
        partly = self.stream.accesses == "partial"
        bound = {one.key for one in self._access_bound()} if partly else set()
        exit_keys = [f"exits.{kind.key}" for kind in self.kinds if kind.key in bound]
        counter_keys = [counter.key for counter in self.extra if counter.key in bound]
        if partly:
            reasons |= dict.fromkeys([*exit_keys, *counter_keys, *_HARDWARE], _PART)
        exits: dict[Exit, int | None] = {}
        for kind in self.kinds:
            if kind is Exit.REMOTE_FENCE and not self._can_be_called():
                continue
            exits[kind] = int(self.hardware.counts[kind])
            if kind.key in missing:
                exits[kind] = None
                reasons[f"exits.{kind.key}"] = missing[kind.key]
        if Exit.GUEST_FAULT in exits and not self.stream.page_faults:
            exits[Exit.GUEST_FAULT] = None
            reasons["exits.guest_fault"] = "the source does not report the guest's page faults"
        if None in exits.values():
            reasons["exits.total"] = "a kind is missing; exits.at_least is the sum of the others"
        elif partly and exit_keys:
            reasons["exits.total"] = "a kind is counted in part; exits.at_least is the sum"
        counters: dict[Counter, int | None] = {}
        for counter in self.extra:
            count = int(self.hardware.counts[COUNTERS + counter])
            counters[counter] = None if counter.key in missing else count
            if counter.key in missing:
                reasons[counter.key] = missing[counter.key]
        slots, config = self.stream.filter, self.machine.tlb
        footprint = self.machine.footprint_data, self.machine.footprint_code
        if seen and not tlbs.misses_through(config, slots, *footprint):
            seen = False
            reason = f"the accesses have passed a filter of {slots} slots; {_suiting(self.machine)}"
        if not seen:
            reasons.update(dict.fromkeys(_HARDWARE, reason))
            return PolicyResult(exits, None, None, None, None, None, counters, reasons)
        cached = self.machine.walk_cache_ways > 0
        if not cached:
            reasons["walk_cache_hits"] = "the machine has no walk cache (walk_cache_ways = 0)"
        tlb = self.hardware.tlb_counts
        hits = {
            level: None if slots and level != "second" else int(tlb[f"hits_{level}"].sum())
            for level in ("data", "fetch", "second")
        }
        if slots:
            dropped = "the access filter has dropped hits of the first level"
            reasons.update(dict.fromkeys(("tlb_hits.data", "tlb_hits.fetch"), dropped))
        return PolicyResult(
            exits=exits,
            tlb_misses=int(tlb["misses"].sum()),
            tlb_hits=hits,
            tlb_displaced=int(tlb["displaced"].sum()),
            walk_refs={
                "vs": int(self.hardware.counts[REFS_VS]),
                "g": int(self.hardware.counts[REFS_G]),
            },
            walk_cache_hits=int(self.hardware.cache_states["shortened"].sum()) if cached else None,
            counters=counters,
            reasons=reasons,
        )


P = TypeVar("P", bound=type[Policy])

POLICIES: dict[str, type[Policy]] = {}
"""Class of each policy, by name."""


def register(policy: P) -> P:
    """Make a policy known by its name; a decorator for its class.

    :raises ModelError: when another class has this name.
    """
    known = POLICIES.setdefault(policy.name, policy)
    if known is not policy:
        raise ModelError(f"policy {policy.name} is defined in {known.__module__} already")
    ordered = sorted(POLICIES.values(), key=lambda one: (one.place, one.name))
    POLICIES.clear()
    POLICIES.update({one.name: one for one in ordered})
    return policy


def make(spec: str, machine: MachineModel, stream: Stream | None = None) -> Policy:
    """Return a fresh policy as ``spec`` describes it: ``NAME`` or ``NAME:key=value,key=value``.

    :param spec: a name of :data:`POLICIES`, and values for its options.
    :param machine: what all policies of a run share.
    :param stream: how complete the events are; by default every access is there.
    :raises UsageError: when there is no such policy or option, or an option cannot have the value.
    """
    name, _, text = spec.partition(":")
    if name not in POLICIES:
        raise UsageError(f"no policy is called {name!r}; there are {', '.join(POLICIES)}")
    kind: type[Any] = POLICIES[name]
    policy: Policy = kind(machine, parse(name, kind.options, text), stream or Stream())
    return policy


def _suiting(machine: MachineModel) -> str:
    """Return what to do about a filter that does not suit the machine's TLB."""
    footprint = machine.footprint_data, machine.footprint_code
    largest = tlbs.largest_filter(machine.tlb, *footprint)
    if largest:
        return f"this TLB takes {largest} at most; run or capture with --filter {largest}"
    if machine.tlb.fetch is None:
        return "no filter suits a unified first level; model a separate one for code (fetch)"
    return "no filter suits a first level whose sets exit_footprint fills; model more ways"


def _of_own_only(result: PolicyResult) -> PolicyResult:
    """``result``, with the reason why its counts are less than all that happened."""
    counts = result.to_json()
    exits = counts.pop("exits")
    known = [f"exits.{kind.key}" for kind in result.exits if exits[kind.key] is not None]
    known += [key for key, count in counts.items() if count is not None and key != "reasons"]
    reasons = dict(result.reasons)
    for key in known:
        reasons[key] = f"{reasons[key]}; {_OWN}" if key in reasons else _OWN
    if exits["total"] is not None and result.exits:
        reasons["exits.total"] = f"{_OWN}; exits.at_least is the sum"
    return replace(result, reasons=reasons)


class OwnEvents(NamedTuple):
    """A batch without what the guest's own virtual machines do, fit for kernels.

    If several models consume a batch, :func:`own_events` need not look at it again for each.
    """

    events: EventBatch
    harts: int
    """All events are of harts below this number."""
    lacks_virtual_machine: bool
    """True if events were left out that prove that the guest has a virtual machine."""


def own_events(batch: EventBatch | OwnEvents, machine: MachineModel) -> OwnEvents:
    """Return ``batch``, or a copy in which marks, which concern no model, stand for what the
    guest's own virtual machines do.  Refuse what a kernel must not see.

    :raises ModelError: when it is not a batch of events, names a hart that the machine does not
        have, or writes a ``satp`` that no register can hold.
    """
    if isinstance(batch, OwnEvents):
        if batch.harts == machine.harts:
            return batch
        again = own_events(batch.events, machine)
        return again._replace(lacks_virtual_machine=batch.lacks_virtual_machine)
    if batch.dtype != EVENT or batch.ndim != 1:
        raise ModelError("not a one-dimensional array of hypervisor_model.events.EVENT")
    small = small_fields(batch)
    if len(batch) and int(small["hart"].max()) >= machine.harts:
        raise ModelError(
            f"an event of hart {int(small['hart'].max())}, but the machine has {machine.harts}; "
            "set `harts` of the machine"
        )
    named = int(np.bitwise_or.reduce(small["harts"])) >> machine.harts
    if named:
        raise ModelError(
            f"a remote fence of hart {named.bit_length() - 1 + machine.harts}, but the machine has "
            f"{machine.harts}; set `harts` of the machine"
        )
    virtual, lacks = of_virtual_machines(small), False
    if virtual.any():
        lacks = show_virtual_machine(batch)
        batch = batch.copy()
        batch["kind"][virtual] = Kind.MARK
        small["kind"][virtual] = Kind.MARK
    written = batch["b"][small["kind"] == Kind.SATP_WRITE]
    for value in written.tolist():
        if unsigned(value) >> MODE_SHIFT not in _MODES:
            raise ModelError(
                f"satp {unsigned(value):#x} has a reserved MODE, which no register holds"
            )
    return OwnEvents(batch, machine.harts, lacks)
