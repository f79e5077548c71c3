"""The documents of ``cosim reproduce``: one file a figure, plain rows, checked when read.

``DIR/NAME.json``::

    {"figure": NAME, "title": TEXT, "rows": [ROW, ...],
     "measured": TEXT, "paper": TEXT, "difference": TEXT, "settings": {...},
     "claims": [{"claim": TEXT, "measured": N | TEXT, "paper": N | TEXT, "departure": TEXT}, ...],
     "notes": [TEXT, ...], "warnings": [TEXT, ...], "quick": BOOLEAN}

Blank lines part the paragraphs of a text.  ``claims``, ``notes``, ``warnings`` and ``quick`` are
optional.  Claims are the numbers that the page shows first, next to the paper's; ``departure``
(optional) says how far ours are from them.  Notes stand below the figure.  Warnings say why not to
rely on the figure; they come before everything else.  ``quick`` is true if small sizes were
measured.  Rows are plain, for other people's plots; a count that could not be measured is null.
By ``figure``:

``fig5``
    ``share`` (of modifications, 0 to 1), ``policy``, ``exits``, ``expected`` (null if theory
    says nothing).  With several programs also ``program``; each has its own plot.
``fig6``
    ``window`` (modifications for each fence), ``policy``, ``fence`` (``va`` or ``all``),
    ``exits`` (those that the global page table causes); optional ``sync_reads`` (entries of the
    guest's tables read at fences, null for policies that read none).
``refs``
    ``mode`` (such as ``sv39 x sv39x4``), ``policy``, ``refs_per_miss`` (measured), ``expected``.
``fig7``
    ``program``, ``stands_for`` (the paper's program, or null), ``stand_in`` (true for a program of
    our own in its place), ``policy``, ``exits``, ``tlb_misses``, ``exits_vs_shadow``,
    ``tlb_misses_vs_nested``.
any other
    ``panel``, ``series``, ``x``, ``y``: one small plot for each panel.  If ``x`` is a number the
    panel has lines, if it is text it has bars.  Optional in a row: ``x_label`` and ``y_label``
    (the first of a panel counts) and ``y_unit``: ``share`` (0 to 1, shown in per cent) or
    ``ratio``.  Neighbouring panels with the same ``y_label`` and unit stand side by side on one
    scale.  The scale is logarithmic if their counts are far apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cosim.errors import UsageError

ORDER = ("fig5", "fig5-linux", "fig6", "refs", "fig7", "beyond")
"""The figures of ``cosim reproduce``, in the order of the page; others come after them."""


@dataclass(frozen=True)
class Row:
    """A row of a document.

    :raises UsageError: when a field is read that is of the wrong kind; the message names it.
    """

    where: str
    fields: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return the text in ``key``."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else self.refuse(key, "text")

    def number(self, key: str) -> float:
        """Return the number in ``key``."""
        value = self.maybe(key)
        return value if value is not None else self.refuse(key, "a number")

    def maybe(self, key: str) -> float | None:
        """Return the number in ``key``, None if it is null or missing."""
        value = self.fields.get(key)
        if value is None:
            return None
        # The comparison also refuses NaN and Infinity, which Python reads though JSON has none.
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return value
        return self.refuse(key, "a number or null")

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Refuse the row, because ``key`` is not what is ``wanted``.

        :raises UsageError: always.
        """
        raise UsageError(f"{self.where}: {key} is {self.fields.get(key)!r}, not {wanted}")

    def refuse_second(self, key: str, name: str) -> NoReturn:
        """Refuse the row, because another row of ``name`` has the same ``key``.

        :raises UsageError: always.
        """
        raise UsageError(f"{self.where}: a second row of {name} with {key} {self.fields[key]!r}")


class FigureDocument:
    """One figure's document.

    :param where: names the document in messages.
    :raises UsageError: when ``data`` is no such document.
    """

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
            raise UsageError(f"{top.where}: {key} {number} is not an object")
        rows.append(Row(f"{top.where}, {key} {number}", row))
    return rows


def _typed(top: Row, key: str, kind: type) -> Any:
    value = top.fields.get(key, kind())
    return value if isinstance(value, kind) else top.refuse(key, kind.__name__)
