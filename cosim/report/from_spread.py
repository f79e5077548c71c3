"""How far the counts of several runs spread, as sentences and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cosim.report import number_text
from cosim.report.content import Cell, Part, Section, Table

Counts = Mapping[str, Mapping[str, Any]]

_FIRST = ("region.instructions", "events.pte_write", "events.satp_write", "events.remote_fence")
"""What a short table shows of the guest."""
_OF_POLICIES = ("exits.total", "tlb_misses")
"""And of each policy; ``exits.at_least`` stands in for a total that is not known."""


def sections(spread: Mapping[str, Any] | None) -> Iterator[Section]:
    """Yield what ``spread`` of a result says; nothing if there was one run."""
    if not spread:
        return
    counts: Counts = spread["counts"]
    heading = f"Median and spread of {spread['runs']} runs"
    short = {path: counts[path] for path in counts if _is_short(path, counts)}
    yield Section("spread", heading, (_table(short),), data=dict(spread))
    yield Section("spread-all", f"{heading}: all counts", (_table(counts),), detail=True)


def sentences(spread: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield which of the runs a result shows; nothing if there was one run."""
    if not spread:
        return
    if spread["findings"]:
        yield f"{spread['findings']} of {spread['runs']} runs have a finding; this is the first."
    else:
        yield f"Of {spread['runs']} runs this is the one in the middle, by its instructions."


def _is_short(path: str, counts: Counts) -> bool:
    if path.endswith(".exits.at_least"):
        return path.replace("at_least", "total") not in counts
    return path in _FIRST or path.endswith(tuple(f".{key}" for key in _OF_POLICIES))


def _table(counts: Counts) -> Part:
    rows = tuple(
        (
            Cell(path.removeprefix("policies.")),
            Cell(number_text.number(one["median"]), one["median"]),
            Cell.of(one["lowest"]),
            Cell.of(one["highest"]),
            Cell(_share(one), one["highest"] - one["lowest"]),
        )
        for path, one in counts.items()
    )
    return Table("", ("", "median", "lowest", "highest", "spread"), rows)


def _share(one: Mapping[str, Any]) -> str:
    """Return the distance from the lowest to the highest count as a share of the median."""
    width = one["highest"] - one["lowest"]
    if width == 0:
        return "none"
    return number_text.percent(width / one["median"]) if one["median"] else f"{width:,}"
