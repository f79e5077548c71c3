"""The result document: live runs and replays of traces give the same JSON.

A source describes its run in two halves: the :class:`Origin` when it starts and the :class:`Ending`
when it is over.  A trace stores both.  Everything else in the document comes from the events, so a
live run and a replay share :func:`document` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from cosim.models.derived import Derived, derive
from cosim.models.profile import Profile
from hypervisor_model.policies import MachineModel, Stream

FORMAT = "lsp-cosim-result"
VERSION = 1
MISSED = ("missed_writes", "dma_writes", "missed_satp_writes", "late_sites")
"""Counts of the audit; any of them above 0 is a finding."""

Json = dict[str, Any]

_NAMELESS = "the trace is from a version of cosim that did not look for them; capture it again"
"""Why older traces do not name processes."""
_RENAMED = {"mi": "gdb"}
"""Names of backends in older traces and results, and today's."""


class FenceCounts(TypedDict):
    """Fences by the form of their operands."""

    va: int
    va_asid: int
    asid: int
    all: int


class VirtualCounts(TypedDict):
    """Events of virtual machines that the guest runs itself
    (:func:`hypervisor_model.events.of_virtual_machines`)."""

    fence: int
    satp_write: int
    """Includes ``vsatp`` and ``hgatp``."""
    access: int | None
    page_fault: int | None


class EventCounts(TypedDict):
    """Events by kind.

    ``pte_write`` counts entries stored to; ``pte_write_continued`` are those among them that
    belong to the same store as the one before.  ``hardware_ad_updates`` are no stores: entries in
    which the guest's MMU was found to have set A or D.  ``access``, ``satp_write`` and
    ``envcfg_write`` leave out the ``sample`` events, which say where a stop found the guest and
    what the registers hold at the start of the region.
    """

    total: int
    table_add: int
    table_entry: int
    table_drop: int
    pte_write: int
    pte_write_continued: int
    hardware_ad_updates: int
    fence: FenceCounts
    fence_order: NotRequired[int]
    """``sfence.w.inval`` and ``sfence.inval.ir``; older results lack it."""
    remote_fence: NotRequired[int]
    """Calls for a fence on named harts; results of one hart lack it."""
    satp_write: int
    envcfg_write: int
    access: int | None
    """None if the source sees no accesses."""
    sample: int
    page_fault: int | None
    """None if the source does not see the guest's own page faults."""
    mark: int
    virtual: VirtualCounts | None
    """In no other count except ``total``.  None if the source sees only some of them."""
    reasons: NotRequired[dict[str, str]]
    """Why a count is None."""


class TranslationCounts(TypedDict):
    """Answers of one party compared with the legal ones (:mod:`hypervisor_model.legality`)."""

    compared: int
    fresh: int
    stale_legal: int
    illegal: int
    undecided: int


class ResultDocument(TypedDict):
    """See docs/architecture.md, "Results"."""

    format: str
    version: int
    complete: bool
    incomplete_because: NotRequired[str]
    guest: Json
    backend: str
    region: Json
    accesses: str
    machine: Json
    stepped: Json | None
    events: EventCounts
    audit: Json | None
    agreement: NotRequired[Json]
    """How far two sources of one run agree; only if there were two."""
    policies: dict[str, Json]
    derived: NotRequired[Derived]
    """What follows from ``policies``; older results lack it."""
    profile: NotRequired[Profile]
    """Where and when the policies exit; older results lack it."""
    translations: dict[str, TranslationCounts]
    illegal_translations: list[Json]
    spread: NotRequired[Json]
    """How far the counts of several runs spread (``cosim.models.spread``); only if there were
    several."""


@dataclass(frozen=True)
class Origin:
    """What a source knows when a run starts."""

    guest: Json
    """``name``, ``kernel``, ``command_line``, ``qemu`` (version), ``sha256`` of its files,
    ``arguments`` of QEMU ...: enough to run it again."""
    backend: str
    """Its name: ``gdb``, ``plugin`` ..."""
    region: Json
    """``from`` and ``to``, as the user named them."""
    stream: Stream
    """How complete the events are."""
    machine: MachineModel
    """The guest's machine, and the hardware that the policies were given."""
    virtual_machines: bool = True
    """False: the source sees only some events of virtual machines that the guest runs."""
    nameless: str | None = None
    """Why no event says which process owns an address space; None if the source looks for that."""

    def to_json(self) -> Json:
        """Return a dictionary for JSON that :meth:`from_json` reads."""
        parts = {"stream": dict(vars(self.stream)), "machine": self.machine.to_json()}
        return {**vars(self), **parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Origin:
        """Return the origin in ``data``.

        :raises ValueError, KeyError, ModelError: when ``data`` is not an origin.
        """
        return cls(
            guest=_part(data, "guest", dict),
            backend=backend_name(_part(data, "backend", str)),
            region=_part(data, "region", dict),
            stream=Stream(
                accesses=_choice(data["stream"], "accesses", ("all", "partial", "none")),
                page_faults=_part(data["stream"], "page_faults", bool),
                # Traces from before the filter could be chosen do not say it: 256 slots.
                filter=_part({"filter": 256, **data["stream"]}, "filter", int),
            ),
            machine=MachineModel.from_json(_part(data, "machine", dict)),
            # Older traces do not say it; of their backends only the renamed one saw less.
            virtual_machines=_part(
                {"virtual_machines": data["backend"] not in _RENAMED, **data},
                "virtual_machines",
                bool,
            ),
            nameless=_part({"nameless": _NAMELESS, **data}, "nameless", str, optional=True),
        )


@dataclass(frozen=True)
class Ending:
    """What a source knows when a run is over."""

    complete: bool
    reason: str | None = None
    """Why the run is not complete; None if it is."""
    region: Json = field(default_factory=dict)
    """More on the region: ``instructions`` ..."""
    stepped: Json | None = None
    """``instructions`` and ``share``; None if the source does not step."""
    audit: Json | None = None
    """``checks`` and ``missed_writes`` of the audits against RAM; None if there was no audit."""
    agreement: Json | None = None
    """How far two sources of one run agree; None if there was only one."""

    @classmethod
    def incomplete(cls, reason: str) -> Ending:
        """Return the ending of a run of which only ``reason`` is known."""
        return cls(complete=False, reason=reason)

    def to_json(self) -> Json:
        """Return a dictionary for JSON that :meth:`from_json` reads."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ending:
        """Return the ending in ``data``.

        :raises ValueError: when ``data`` is not an ending.
        """
        return cls(
            complete=_part(data, "complete", bool),
            reason=_part(data, "reason", str, optional=True),
            region=_counts(_part(data, "region", dict), ("instructions", "not_replayed", "stops"))
            or {},
            stepped=_part(data, "stepped", dict, optional=True),
            audit=_counts(
                _part(data, "audit", dict, optional=True),
                ("checks", "hardware_ad_updates", *MISSED),
            ),
            agreement=_part(data, "agreement", dict, optional=True),
        )


def document(
    origin: Origin,
    ending: Ending,
    events: EventCounts,
    policies: Mapping[str, Json],
    translations: Mapping[str, TranslationCounts],
    illegal_translations: Sequence[Json] = (),
) -> ResultDocument:
    """Return the result of a run, as docs/architecture.md describes it."""
    result = ResultDocument(
        format=FORMAT,
        version=VERSION,
        complete=ending.complete,
        guest=origin.guest,
        backend=origin.backend,
        region={**origin.region, **ending.region},
        accesses=origin.stream.accesses,
        machine=origin.machine.to_json(),
        stepped=ending.stepped,
        events=_measured(events, origin),
        audit=ending.audit,
        policies=dict(policies),
        derived=derive(policies),
        translations=dict(translations),
        illegal_translations=list(illegal_translations),
    )
    if ending.agreement is not None:
        result["agreement"] = ending.agreement
    if ending.reason is not None:
        result["incomplete_because"] = ending.reason
    return result


_VIRTUAL = (
    "virtual machines that the guest runs itself (V=1) are in no other count, in no policy and in "
    "no comparison: the models follow one guest, not its guests"
)

_VIRTUAL_FENCES = "fences of or for virtual machines (V=1, hfence, hinval) are in no other count"


def _measured(events: EventCounts, origin: Origin) -> EventCounts:
    """Return ``events`` without the counts that the source cannot know."""
    known = EventCounts(**events)
    reasons = {}
    if origin.stream.accesses == "none":
        known["access"] = None
        reasons["access"] = f"the source ({origin.backend}) was not asked for accesses"
    if not origin.stream.page_faults:
        known["page_fault"] = None
        reasons["page_fault"] = "the source does not report the guest's page faults"
    virtual = events["virtual"]
    if virtual is not None and any(virtual.values()):
        others = (virtual["satp_write"], virtual["access"], virtual["page_fault"])
        reasons["virtual"] = _VIRTUAL if any(others) else _VIRTUAL_FENCES
        if not origin.virtual_machines:
            known["virtual"] = None
            reasons["virtual"] += f"; through {origin.backend} only some of them are seen"
        else:
            shown = VirtualCounts(**virtual)
            if known["access"] is None:
                shown["access"] = None
            if known["page_fault"] is None:
                shown["page_fault"] = None
            known["virtual"] = shown
    if reasons:
        known["reasons"] = reasons
    return known


def has_finding(result: ResultDocument) -> bool:
    """Return True if the exit status is 1: a translation was illegal, something was missed, or two
    sources differ."""
    if result.get("spread", {}).get("findings"):
        return True
    illegal = sum(counts["illegal"] for counts in result["translations"].values())
    return bool(
        illegal
        or any(missed(result["audit"]).values())
        or result.get("agreement", {}).get("difference")
    )


def missed(audit: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the counts of what the audit found missing; older traces lack some of them."""
    counts = audit or {}
    return {key: counts.get(key) or 0 for key in MISSED}


def missed_text(key: str) -> str:
    """Return in words what a count of :func:`missed` counts."""
    return "entries written by devices" if key == "dma_writes" else key.replace("_", " ")


def backend_name(written: str) -> str:
    """Return today's name of the backend that a trace or a result names."""
    return _RENAMED.get(written, written)


def _part(data: Mapping[str, Any], key: str, kind: type, *, optional: bool = False) -> Any:
    value = data.get(key)
    if isinstance(value, kind) or (optional and value is None):
        return value
    raise ValueError(f"{key} is {value!r}, not {kind.__name__}")


def _counts(data: Json | None, keys: Iterable[str]) -> Json | None:
    """Return ``data``, whose ``keys`` are counts as far as they are there.

    :raises ValueError: when one is not.
    """
    for key in keys:
        value = (data or {}).get(key)
        if value is not None and (type(value) is not int or value < 0):
            raise ValueError(f"{key} is {value!r}, not a count")
    return data


def _choice(data: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> Any:
    if data.get(key) not in allowed:
        raise ValueError(f"{key} is {data.get(key)!r}, not one of {', '.join(allowed)}")
    return data[key]
