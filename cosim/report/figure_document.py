"""The documents of ``cosim reproduce``: one file a figure, plain rows, checked when read.

``DIR/NAME.json``::

    {"figure": NAME, "title": TEXT, "rows": [ROW, ...],
     "measured": TEXT, "paper": TEXT, "difference": TEXT, "settings": {...},
     "claims": [{"claim": TEXT, "measured": N | TEXT, "paper": N | TEXT, "departure": TEXT}, ...],
     "notes": [TEXT, ...], "warnings": [TEXT, ...], "quick": BOOLEAN}

Texts may have paragraphs, parted by blank lines.  ``claims`` (optional) are the numbers that the
page shows first, next to the paper's, and by how much they depart (optional); ``notes`` (optional)
stand below the figure.  ``warnings``
(optional) say why not to rely on it, and stand first of all; ``quick`` (optional) is true for the
small sizes.  Rows are plain, for other people's plots; a count that could not be measured is null.
By ``figure``:

``fig5``
    ``share`` (of modifications, 0 to 1), ``policy``, ``exits``, ``expected`` (null where theory
    says nothing); ``program`` where there are several: each has a plot of its own.
``fig6``
    ``window`` (modifications for each fence), ``policy``, ``fence`` (``va`` or ``all``),
    ``exits`` (those that the global page table causes); optional ``sync_reads`` (entries of the
    guest's tables read at fences, null for policies that read none).
``refs``
    ``mode`` (such as ``sv39 x sv39x4``), ``policy``, ``refs_per_miss`` (measured), ``expected``.
``fig7``
    ``program``, ``stands_for`` (the paper's program, or null), ``stand_in`` (whether it is a
    kernel of our own in its place), ``policy``, ``exits``, ``tlb_misses``, ``exits_vs_shadow``,
    ``tlb_misses_vs_nested``.
any other
    ``panel``, ``series``, ``x``, ``y``: small multiples, a panel each.  Where ``x`` is a number the
    panel has lines, where it is text it has bars.  Optional in a row: ``x_label`` and ``y_label``
    (the first of a panel counts) and ``y_unit``: ``share`` (0 to 1, shown in per cent) or
    ``ratio``.  Panels that follow each other and have the same ``y_label`` and unit are shown
    side by side on one scale, which is logarithmic where their counts are far apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cosim.errors import UsageError

ORDER = ("fig5", "fig5-linux", "fig6", "refs", "fig7", "beyond")
"""The figures of ``cosim reproduce``, in the order of the page; others follow."""


@dataclass(frozen=True)
class Row:
    """A row of a document; reading a field of the wrong kind raises UsageError that names it."""

    where: str
    fields: Mapping[str, Any]

    def text(self, key: str) -> str:
        """The text in ``key``."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else self.refuse(key, "text")

    def number(self, key: str) -> float:
        """The number in ``key``."""
        value = self.maybe(key)
        return value if value is not None else self.refuse(key, "a number")

    def maybe(self, key: str) -> float | None:
        """The number in ``key``, None where it is null or missing."""
        value = self.fields.get(key)
        if value is None:
            return None
        # The comparison also refuses NaN and Infinity, which Python reads though JSON has none.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return value
        return self.refuse(key, "a number or null")

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise UsageError: ``key`` is not what is ``wanted``."""
        raise UsageError(f"{self.where}: {key} is {self.fields.get(key)!r}, not {wanted}")

    def refuse_second(self, key: str, name: str) -> NoReturn:
        """Raise UsageError: another row of ``name`` has the same ``key``."""
        raise UsageError(f"{self.where}: a second row of {name} with {key} {self.fields[key]!r}")


class FigureDocument:
    """One figure's document; raises UsageError when ``data`` is none, naming ``where`` it is."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        top = Row(where, data)
        self.data = dict(data)
        self.figure = top.text("figure")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.figure):
            top.refuse("figure", "a name of letters, digits, - and _")
        self.title = top.text("title")
        self.texts = tuple(
            (label, top.text(key))
            for label, key in (
                ("What was measured", "measured"),
                ("What the paper says", "paper"),
                ("Where they differ, and why", "difference"),
            )
        )
        self.settings = _typed(top, "settings", dict)
        self.notes = tuple(str(note) for note in _typed(top, "notes", list))
        self.warnings = tuple(str(warning) for warning in _typed(top, "warnings", list))
        self.quick: bool = _typed(top, "quick", bool)
        self.rows = _rows(top, "rows")
        if not self.rows:
            raise UsageError(f"{where}: rows is empty")
        self.claims = [
            (
                row.text("claim"),
                _claimed(row, "measured"),
                _claimed(row, "paper"),
                str(row.fields.get("departure") or ""),
            )
            for row in _rows(top, "claims")
        ]


def _claimed(row: Row, key: str) -> str | float | None:
    value = row.fields.get(key)
    return value if isinstance(value, str) else row.maybe(key)


def _rows(top: Row, key: str) -> list[Row]:
    rows = []
    for number, row in enumerate(_typed(top, key, list), 1):
        if not isinstance(row, dict):
            raise UsageError(f"{top.where}: {key} {number} is no object")
        rows.append(Row(f"{top.where}, {key} {number}", row))
    return rows


def _typed(top: Row, key: str, kind: type) -> Any:
    value = top.fields.get(key, kind())
    return value if isinstance(value, kind) else top.refuse(key, kind.__name__)
