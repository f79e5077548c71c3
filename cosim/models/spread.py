"""Several runs of a guest that does not repeat itself: each count's median and its spread.

The runs are told by one result document, that of the run in the middle, with ``spread`` added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, TypedDict

from cosim.models.result import ResultDocument, has_finding

_PARTS = ("region", "events", "audit", "policies", "translations")
"""The parts of a result that hold counts."""


class CountSpread(TypedDict):
    """One count over all runs."""

    median: float
    lowest: int
    highest: int


class Spread(TypedDict):
    """Every count that all runs know."""

    runs: int
    findings: int
    """Runs with a finding."""
    counts: dict[str, CountSpread]
    """By the path of the count in the result: ``policies.lsp.exits.total``."""


def combine(results: Sequence[ResultDocument]) -> ResultDocument:
    """Return the result of the run in the middle, by its instructions, with ``spread``.

    If a run has a finding, the first such run is returned instead, so that the finding is seen.

    :param results: one or more, of the same guest and the same models.
    """
    found = [result for result in results if has_finding(result)]
    by_length = sorted(results, key=lambda result: result["region"].get("instructions") or 0)
    chosen = found[0] if found else by_length[(len(results) - 1) // 2]
    return ResultDocument(**{**chosen, "spread": spread(results, len(found))})  # type: ignore[typeddict-item]


def spread(results: Sequence[ResultDocument], findings: int) -> Spread:
    """Return how far the counts of ``results`` spread.

    :param findings: how many of them have a finding.
    """
    counted = [dict(_counts(result)) for result in results]
    shared = [path for path in counted[0] if all(path in one for one in counted)]
    counts = {}
    for path in shared:
        values = [one[path] for one in counted]
        middle = median(values)
        counts[path] = CountSpread(
            median=int(middle) if middle == int(middle) else middle,
            lowest=min(values),
            highest=max(values),
        )
    return Spread(runs=len(results), findings=findings, counts=counts)


def _counts(result: ResultDocument) -> Iterator[tuple[str, int]]:
    for part in _PARTS:
        yield from _leaves(part, result.get(part))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif type(value) is int:
        yield path, value
