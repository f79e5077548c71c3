"""A figure: plain rows, and what is to be said of them; as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosim.report.number_text import percent

Row = dict[str, Any]
"""A row of :mod:`cosim.report.figure_document`."""


@dataclass(frozen=True)
class Panel:
    """One of a figure's small plots (``panel`` in :mod:`cosim.report.figure_document`)."""

    name: str
    y_label: str
    y_unit: str | None = None
    """``share`` or ``ratio``; None for counts."""
    x_label: str | None = None

    def row(self, series: str, x: float | str, y: float | None) -> Row:
        """Return the row of one point or bar."""
        labels = {"x_label": self.x_label, "y_label": self.y_label, "y_unit": self.y_unit}
        known = {key: value for key, value in labels.items() if value is not None}
        return {"panel": self.name, "series": series, "x": x, "y": y, **known}


@dataclass(frozen=True)
class Claim:
    """A number that the paper claims, and ours."""

    claim: str
    measured: float | str | None
    paper: float | str
    departure: str
    """How far ours is from it."""


@dataclass(frozen=True)
class Figure:
    """A document of :mod:`cosim.report.figure_document`."""

    figure: str
    title: str
    rows: list[Row]
    measured: str
    """What was measured, and what we chose if the paper does not say."""
    paper: str
    """What the paper says, in our words."""
    difference: str
    """How far we are from it, and the likely cause."""
    settings: Mapping[str, Any]
    claims: Sequence[Claim] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """Why not to rely on it. Each makes the exit status of the command 1."""
    quick: bool = False
    """Small sizes were measured."""
    also: Sequence[Figure] = ()
    """Further figures of the same experiment, each with its own document."""
    made_of: Sequence[str] | None = None
    """Names of the measurements that it is made of; None: all of the experiment."""

    def to_json(self) -> dict[str, Any]:
        """Return the document."""
        return {
            "figure": self.figure,
            "title": self.title,
            "rows": self.rows,
            "measured": self.measured,
            "paper": self.paper,
            "difference": self.difference,
            "settings": dict(self.settings),
            "claims": [vars(claim) for claim in self.claims],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "quick": self.quick,
        }

    def to_csv(self) -> str:
        """Return the rows; an empty field is a count that could not be measured."""
        keys = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def counted(number: int | None) -> str:
    """Return a count in words."""
    return "not counted" if number is None else f"{number:,}"


def percents(low: float, high: float) -> str:
    """Return a range of shares as percentages."""
    return f"{low * 100:.1f} to {percent(high, 1)}"


def points(difference: float) -> str:
    """Return the difference of two shares in percentage points."""
    return f"{difference * 100:+.1f} points"


def ratio(part: float | None, whole: float | None) -> float | None:
    """Return ``part / whole``; None if either is not known, or ``whole`` is 0."""
    return None if part is None or not whole else part / whole
