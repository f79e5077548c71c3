"""Tables of the page and of the terminal: one content, two looks."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import rich.table
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult

from cosim.output import WIDTH
from cosim.report import scale
from cosim.report.plot import Bar, Bars, Lines, Plot

UNKNOWN = "-"
"""Stands where a count is not known."""


_NAME_WIDTH, _CELL_WIDTH = 40, 24
"""Columns that the first (of :data:`WIDTH`) and any other column of a table have at most."""
_NARROW_NAME = 22
"""Columns that names are squeezed into at the most, to keep their table whole."""
_PADDING = 3


@dataclass(frozen=True)
class Cell:
    """``text`` as it is read; ``value`` where it is a number."""

    text: str
    value: float | None = None

    @classmethod
    def of(cls, value: float | None, text: Callable[[float], str] = scale.number) -> Cell:
        """The cell of a number that may be unknown."""
        return cls(UNKNOWN) if value is None else cls(text(value), value)


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row, the others hold numbers where ``numeric``."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True


def of_plot(plot: Plot) -> Table:
    """The numbers of ``plot``: a row for each x or group, a column for each series."""
    return _of_lines(plot) if isinstance(plot, Lines) else _of_bars(plot)


def of_mapping(caption: str, mapping: Mapping[str, Any]) -> Table:
    """Names and values; a mapping inside gives ``outer.inner`` names."""
    rows = tuple((Cell(name), Cell(text)) for name, text in _flat(mapping))
    return Table(caption, ("", ""), rows, numeric=False)


def of_rich(table: rich.table.Table) -> Table:
    """The content of a table that was made for the terminal."""
    columns = tuple(str(column.header) for column in table.columns)
    cells = zip(*(column.cells for column in table.columns), strict=True)
    rows = tuple(tuple(Cell(str(cell)) for cell in row) for row in cells)
    return Table("", columns, rows, numeric=table.columns[-1].justify == "right")


@dataclass(frozen=True)
class Fitted:
    """A table as wide as the terminal is; where it is wider, its columns in several tables."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts, for the width that they are printed at."""
        table, limit = self.table, options.max_width
        widths = [_width(table, index) for index in range(len(table.columns))]
        # Names are wrapped before a table is parted.
        left = limit - 1 - _PADDING - sum(width + _PADDING for width in widths[1:])
        most = left if left >= _NARROW_NAME else _NAME_WIDTH * limit // WIDTH
        widths[0] = max(1, min(widths[0], most, _NAME_WIDTH))
        parts: list[list[int]] = [[]]
        # Each column has blanks around it and one before the next; the table has one at its end.
        room = space = limit - 1 - widths[0] - _PADDING
        for index, width in enumerate(widths[1:], 1):
            if width + _PADDING > room and parts[-1]:
                parts.append([])
                room = space
            parts[-1].append(index)
            room -= width + _PADDING
        for part in parts:
            yield _rich_part(table, [0, *part], widths)


def _width(table: Table, index: int) -> int:
    """Headers are wrapped between words; cells only where they are longer than a column can be."""
    words = map(len, table.columns[index].split())
    cells = (len(row[index].text) for row in table.rows)
    return min(max([1, *words, *cells]), _CELL_WIDTH if index else _NAME_WIDTH)


def _rich_part(table: Table, columns: list[int], widths: list[int]) -> rich.table.Table:
    made = rich.table.Table(title=table.caption, title_justify="left", box=box.SIMPLE)
    for index in columns:
        justify: Literal["left", "right"] = "right" if table.numeric and index else "left"
        made.add_column(table.columns[index], justify=justify, width=widths[index], overflow="fold")
    for row in table.rows:
        made.add_row(*(row[index].text for index in columns))
    return made


def _of_lines(plot: Lines) -> Table:
    xs = sorted({x for series in plot.series for x, _ in series.points})
    columns = [dict(series.points) for series in plot.series]
    rows = tuple(
        (Cell.of(x, plot.x.text), *(Cell.of(column.get(x), plot.y.text) for column in columns))
        for x in xs
    )
    labels = (series.label for series in plot.series)
    return Table(_caption(plot, plot.y.label), (plot.x.label, *labels), rows)


def _of_bars(plot: Bars) -> Table:
    columns: list[tuple[str, bool]] = []
    for name in plot.names:
        columns.append((name, False))
        if any(bar.expected is not None for bar in _bars_of(plot, name)):
            columns.append((name, True))
    rows = []
    for group in plot.groups:
        cells = [Cell(group.label)]
        for name, expected in columns:
            bar = group.bars.get(name)
            if bar is None:
                cells.append(Cell(""))
                continue
            cell = Cell.of(bar.expected if expected else bar.value, plot.axis.text)
            cells.append(Cell(f"\u2265 {cell.text}", cell.value) if bar.at_least else cell)
        rows.append(tuple(cells))
    labels = (f"{name}, expected" if expected else name for name, expected in columns)
    return Table(_caption(plot, plot.axis.label), ("", *labels), tuple(rows))


def _bars_of(plot: Bars, name: str) -> Iterable[Bar]:
    return (group.bars[name] for group in plot.groups if name in group.bars)


def _caption(plot: Plot, label: str) -> str:
    return f"{plot.title}: {label}" if plot.title else label


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(name, value)


def _text(name: str, value: Any) -> str:
    match value:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if value else "no"
        case int():
            return hex(value) if name.endswith("base") else scale.number(value)
        case list() if name == "arguments":
            return shlex.join(value)
        case list() | tuple():
            return ", ".join(_text(name, item) for item in value)
    return str(value)
