"""What a report says, as data; the modules in ``renderers`` show it.

A builder (``from_result``, ``from_figures``) makes a :class:`Report`.  A renderer (terminal, page)
shows one.  Neither knows the other, so that a further output is one new file in ``renderers``::

    Report                      title, warnings, the answer, then
      Section                   a heading and parts:
        Paragraphs              sentences
        Table                   rows of cells
        PlotGroup               plots, which also give their numbers as tables
        HeatMap                 a table whose numbers are shaded by size
        FlameGraph              what one count consists of
        Listing                 lines that must stay as they are
        Notes                   short remarks, one a line

Parts and sections with ``detail`` are for readers who want everything: the page shows them, the
terminal only when asked to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from cosim.report import number_text

UNKNOWN = "-"
"""Stands for a count that is not known."""


@dataclass(frozen=True)
class Cell:
    """A field of a table: ``text`` as it is read, and ``value`` if it is a number."""

    text: str
    value: float | None = None

    @classmethod
    def of(cls, value: float | None, text: Callable[[float], str] = number_text.number) -> Cell:
        """Return the cell of a number that may be unknown."""
        return cls(UNKNOWN) if value is None else cls(text(value), value)


@dataclass(frozen=True)
class Part:
    """What a section consists of."""

    _: KW_ONLY
    detail: bool = False
    """Only for readers who want everything."""


@dataclass(frozen=True)
class Paragraphs(Part):
    """Sentences.  A blank line parts paragraphs; text between backticks is code."""

    text: str
    heading: str = ""


@dataclass(frozen=True)
class Listing(Part):
    """Lines that must stay as they are, such as a walk level by level."""

    text: str


@dataclass(frozen=True)
class Notes(Part):
    """Remarks in words, such as why a count is missing."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table(Part):
    """Rows of cells.  The first column names the row.

    A table whose columns have no names lists names and values.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True
    """All columns but the first hold numbers."""
    rule_before: int | None = None
    """The row that a line sets apart from those above it."""

    def narrowed(self, columns: list[int]) -> Table:
        """Return the table with the first column and ``columns``."""
        kept = [0, *columns]
        return Table(
            self.caption,
            tuple(self.columns[index] for index in kept),
            tuple(tuple(row[index] for index in kept) for row in self.rows),
            self.numeric,
            self.rule_before,
            detail=self.detail,
        )


@dataclass(frozen=True)
class HeatMap(Part):
    """A table over two parameters; an output that can do so shades its numbers by their size."""

    table: Table

    def share(self, cell: Cell) -> float | None:
        """Return where the number of ``cell`` lies between the smallest (0) and the largest (1)."""
        values = [c.value for row in self.table.rows for c in row[1:] if c.value is not None]
        if cell.value is None or min(values) == max(values):
            return None
        return (cell.value - min(values)) / (max(values) - min(values))


@dataclass(frozen=True)
class Axis:
    """What is counted, and in which unit.

    Plots that share ``beside`` have the same scale.  A logarithmic axis has only values above 0.
    """

    label: str
    text: Callable[[float], str] = number_text.number
    """Writes a value out."""
    log: bool = False
    beside: tuple[float, ...] = ()
    """Values on other plots, which this axis must hold, too."""

    @property
    def heading(self) -> str:
        """What stands at the axis."""
        return f"{self.label} (logarithmic scale)" if self.log else self.label


@dataclass(frozen=True)
class Series:
    """A curve; a point that is not known has the value None and leaves a gap."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    """``(x, y)`` by ascending x."""
    expected: bool = False
    """What theory says of the series of that name."""

    @property
    def label(self) -> str:
        """The name, and whether this is what theory says."""
        return f"{self.name}, expected" if self.expected else self.name


@dataclass(frozen=True)
class Place:
    """A place on the x axis, drawn as a vertical line."""

    x: float
    label: str


@dataclass(frozen=True)
class Lines:
    """A line plot; y begins at 0, unless it is logarithmic."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    places: tuple[Place, ...] = ()
    step: float = 0
    """If it is above 0, a value holds from its x for this length, and is drawn so."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the series, each once."""
        return tuple(dict.fromkeys(series.name for series in self.series))

    @property
    def values(self) -> list[float]:
        """All values that are known, expected ones too."""
        return [y for series in self.series for _, y in series.points if y is not None]


@dataclass(frozen=True)
class Bar:
    """The value of one series in one group; None if it is not known."""

    value: float | None
    expected: float | None = None
    """What theory says."""
    at_least: bool = False
    """The value is a lower bound."""


@dataclass(frozen=True)
class Group:
    """Bars that belong together, by the names of their series."""

    label: str
    bars: dict[str, Bar]


@dataclass(frozen=True)
class Bars:
    """Bars in groups, from 0; on a logarithmic axis, which has no 0, dots."""

    title: str
    axis: Axis
    groups: tuple[Group, ...]
    baseline: float | None = None
    """A value to compare with."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the series, each once."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.bars))

    @property
    def bars(self) -> tuple[Bar, ...]:
        """All bars, from above."""
        return tuple(bar for group in self.groups for bar in group.bars.values())

    @property
    def values(self) -> list[float]:
        """All values that are known, expected ones and the baseline too."""
        values = [value for bar in self.bars for value in (bar.value, bar.expected)]
        return [value for value in (*values, self.baseline) if value is not None]


Plot = Lines | Bars


@dataclass(frozen=True)
class PlotGroup(Part):
    """Plots side by side; :mod:`cosim.report.plot_tables` has their numbers as tables."""

    caption: str
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...] = ()
    """Further tables, below the plots' own."""


@dataclass(frozen=True)
class Frame:
    """What a count consists of, in a flame graph."""

    label: str
    value: int
    parts: tuple[Frame, ...] = ()
    """Their values add up to at most ``value``."""


@dataclass(frozen=True)
class FlameGraph(Part):
    """One count, and what it consists of, level by level; only for outputs that draw."""

    caption: str
    unit: str
    """What is counted."""
    root: Frame


@dataclass(frozen=True)
class Section:
    """A chapter."""

    slug: str
    """Names the section in links and in JSON."""
    heading: str
    parts: tuple[Part, ...]
    data: Any = None
    """What the section was made from, as JSON."""
    detail: bool = False
    """Only for readers who want everything."""
    drawn: bool = False
    """Only for outputs that draw plots, because another section has the numbers."""

    def shown(self, *, everything: bool) -> tuple[Part, ...]:
        """Return the parts that a reader sees who wants ``everything``, or only what matters."""
        if everything:
            return self.parts
        return () if self.detail else tuple(part for part in self.parts if not part.detail)


@dataclass(frozen=True)
class Report:
    """The whole."""

    title: str
    lead: str
    """What the report is about, in a paragraph."""
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    """Why not to rely on it."""
    answer: tuple[Part, ...] = ()
    """What a reader wants to know first."""
