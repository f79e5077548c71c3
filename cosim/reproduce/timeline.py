"""Counts of a run between marks that the guest sets, so that a warm-up can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from cosim.errors import GuestError
from cosim.models.comparison import REFERENCE
from cosim.models.pipeline import Pipeline
from cosim.output import Step
from cosim.trace.reader import TraceReader
from hypervisor_model.events import EventBatch, Kind
from hypervisor_model.exits import Counter

Json = dict[str, Any]

_GAUGES = {Counter.SHADOW_PAGES.key, Counter.SHADOW_PAGES_PEAK.key}
"""Counters that say how much there is, not how much was added."""

_GUEST = ("qemu", "cpu", "versions")

LINUX = "linux-image-"
"""The name of the package with the guest's kernel begins so."""


@dataclass(frozen=True)
class Counts:
    """What was counted in one stretch of a run."""

    events: Json
    """Events by kind, as in a result document."""
    policies: Mapping[str, Json]
    """By model, as in a result document."""

    def exits(self, model: str, *kinds: str) -> int | None:
        """Return the exits of ``model``: those of these kinds, or all.

        A kind that the policy cannot have counts as 0.  None if one of them could not be counted.
        """
        counted = self.policies[model]["exits"]
        total = 0
        for kind in kinds or ("total",):
            number = counted.get(kind, 0)
            if number is None:
                return None
            total += number
        return total

    @property
    def fences(self) -> dict[str, int]:
        """Fences by the form of their operands: ``va``, ``va_asid``, ``asid``, ``all``."""
        return dict(self.events["fence"])

    def since(self, before: Counts) -> Counts:
        """Return what was counted after ``before``, an earlier part of this stretch."""
        return Counts(
            _difference(self.events, before.events), _difference(self.policies, before.policies)
        )


@dataclass(frozen=True)
class Timeline:
    """A run's counts up to each mark that the guest set, and up to its end."""

    marks: tuple[tuple[str, Counts], ...]
    """Label of each mark, and everything counted before it."""
    end: Counts
    """Everything."""
    translations: Mapping[str, Json]
    """Answers by party and how they compare, as in a result document."""
    missed_writes: int
    """Stores to page tables that the capture's audit found missing."""
    guest: Mapping[str, Any] = field(default_factory=dict)
    """What ran, on what: ``qemu``, ``cpu`` and ``versions`` of a result's ``guest``."""

    @property
    def linux(self) -> str:
        """The guest's kernel, with its version if that is known."""
        versions = self.guest.get("versions", {}).items()
        return next((f"Linux {v}" for name, v in versions if name.startswith(LINUX)), "Linux")

    def after(self, label: str) -> Counts:
        """Return the counts from the first mark ``label`` on.

        :raises GuestError: when the guest did not set it.
        """
        for mark, counts in self.marks:
            if mark == label:
                return self.end.since(counts)
        known = ", ".join(dict.fromkeys(text for text, _ in self.marks)) or "none"
        raise GuestError(f"the guest did not set the mark {label!r}; it set {known}")

    def between(self, first: str, last: str) -> list[Counts]:
        """Return the counts of each stretch from a mark ``first`` to the next mark ``last``.

        A stretch that has no ``last``, because the region ended, is left out.
        """
        stretches, begun = [], None
        for label, counts in self.marks:
            if label == last and begun is not None:
                stretches.append(counts.since(begun))
                begun = None
            elif label == first:
                begun = counts
        return stretches

    def to_json(self) -> Json:
        """Return a dictionary for JSON that :meth:`from_json` reads."""
        return {
            "marks": [{"label": label, **vars(counts)} for label, counts in self.marks],
            "end": vars(self.end),
            "translations": dict(self.translations),
            "missed_writes": self.missed_writes,
            "guest": dict(self.guest),
        }

    @classmethod
    def from_json(cls, data: Json) -> Timeline:
        """Return the timeline in ``data``.

        :raises KeyError: when a field is missing.
        :raises TypeError: when a field is of the wrong kind.
        """
        return cls(
            tuple((m["label"], Counts(m["events"], m["policies"])) for m in data["marks"]),
            Counts(data["end"]["events"], data["end"]["policies"]),
            data["translations"],
            data["missed_writes"],
            data["guest"],
        )

    @classmethod
    def merged(cls, parts: list[Timeline]) -> Timeline:
        """Return one timeline with the models of all ``parts``, which saw the same events."""
        first = parts[0]
        marks = [
            (label, _merged([part.marks[number][1] for part in parts]))
            for number, (label, _) in enumerate(first.marks)
        ]
        return cls(
            tuple(marks),
            _merged([part.end for part in parts]),
            {name: counts for part in parts for name, counts in part.translations.items()},
            first.missed_writes,
            first.guest,
        )

    def only(self, model: str, name: str) -> Timeline:
        """Return the timeline of one model only, and call the model ``name``."""
        marks = tuple((label, _only(counts, model, name)) for label, counts in self.marks)
        translations = {
            name if party == model else party: counts
            for party, counts in self.translations.items()
            if party in (model, REFERENCE)
        }
        end = _only(self.end, model, name)
        return Timeline(marks, end, translations, self.missed_writes, self.guest)


def replay(trace: TraceReader, pipeline: Pipeline, step: Step) -> Timeline:
    """Feed ``trace`` to the models in ``pipeline`` and take their counts at every mark.

    :param step: is told how many events are done, and how many there are.
    :raises TraceDamage: when a segment is damaged.
    """
    marks = []
    done = 0
    for batch in trace.batches():
        for part, label in _parts(batch):
            if label is not None:
                marks.append((trace.labels[label], _counts(trace, pipeline)))
            pipeline.feed(part)
        done += len(batch)
        step(done, trace.events)
    end = pipeline.document(trace.ending)
    return Timeline(
        tuple(marks),
        _counts(trace, pipeline),
        {party: dict(counts) for party, counts in end["translations"].items()},
        (trace.ending.audit or {}).get("missed_writes") or 0,
        {key: trace.origin.guest[key] for key in _GUEST if key in trace.origin.guest},
    )


def _parts(batch: EventBatch) -> Iterator[tuple[EventBatch, int | None]]:
    """Cut ``batch`` before each MARK; give each part with the number of its mark's label."""
    cuts = np.flatnonzero(batch["kind"] == Kind.MARK).tolist()
    yield batch[: (cuts or [len(batch)])[0]], None
    for start, stop in pairwise([*cuts, len(batch)]):
        yield batch[start:stop], int(batch["a"][start])


def _counts(trace: TraceReader, pipeline: Pipeline) -> Counts:
    document = pipeline.document(trace.ending)
    return Counts(dict(document["events"]), document["policies"])


def _difference(now: Any, before: Any) -> Any:
    if isinstance(now, Mapping):
        return {
            key: value if key in _GAUGES else _difference(value, before[key])
            for key, value in now.items()
        }
    if isinstance(now, int) and isinstance(before, int):
        return now - before
    return now


def _merged(parts: list[Counts]) -> Counts:
    policies = {name: policy for part in parts for name, policy in part.policies.items()}
    return Counts(parts[0].events, policies)


def _only(counts: Counts, model: str, name: str) -> Counts:
    return Counts(counts.events, {name: counts.policies[model]})
