"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

import rich.table
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult

from cosim.output import WIDTH, as_text, one_line
from cosim.report import plot_tables
from cosim.report.content import HeatMap, Listing, Notes, Paragraphs, Part, PlotGroup, Report, Table

_NAME_WIDTH, _CELL_WIDTH = 40, 24
"""The widest that the first (of :data:`WIDTH`) and any other column can be."""
_NARROW_NAME = 22
"""Names are wrapped to this width at the least before a table is parted."""
_PADDING = 3


def render(report: Report, *, everything: bool = False) -> RenderableType:
    """Return ``report`` for rich to print: what matters, or ``everything``."""
    return Group(*_lines(report, everything))


def _lines(report: Report, everything: bool) -> Iterator[RenderableType]:
    yield from (as_text(f"Warning: {warning}", "bold red") for warning in report.warnings)
    for part in report.answer:
        yield from _show(part)
    shown = [(one, one.shown(everything=everything)) for one in report.sections if not one.drawn]
    shown = [(section, parts) for section, parts in shown if parts]
    for section, parts in shown:
        # A section that stands alone needs no heading, unless it names the whole.
        if len(shown) > 1 or section.heading == report.title:
            yield as_text(section.heading, "bold")
        for part in parts:
            if isinstance(part, PlotGroup) and part.caption != section.heading:
                yield as_text(part.caption)
            yield from _show(part)


@singledispatch
def _show(part: Part) -> Iterator[RenderableType]:
    raise TypeError(f"the terminal cannot show {type(part).__name__}")


@_show.register
def _(part: Paragraphs) -> Iterator[RenderableType]:
    if part.heading:
        yield as_text(part.heading, "underline")
    yield as_text(f"{part.text}\n")


@_show.register
def _(part: Listing) -> Iterator[RenderableType]:
    yield as_text(f"{part.text}\n")


@_show.register
def _(part: Notes) -> Iterator[RenderableType]:
    yield from (as_text(f"- {line}") for line in part.lines)


@_show.register
def _(part: Table) -> Iterator[RenderableType]:
    yield Fitted(part) if any(part.columns) else _facts(part)


@_show.register
def _(part: HeatMap) -> Iterator[RenderableType]:
    yield Fitted(part.table)


@_show.register
def _(part: PlotGroup) -> Iterator[RenderableType]:
    yield from map(Fitted, plot_tables.of_figure(part))


def _facts(table: Table) -> rich.table.Table:
    """Return a list of names and values."""
    made = rich.table.Table(
        title=table.caption or None,
        title_justify="left",
        show_header=False,
        box=None,
        padding=(0, 2, 0, 0),
    )
    for row in table.rows:
        made.add_row(*(cell.text for cell in row))
    return made


@dataclass(frozen=True)
class Fitted:
    """A table that fits the terminal: one that is wider becomes several, with some columns each."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the parts, for the width that they are printed at."""
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
            yield _table(table.narrowed(part), [widths[index] for index in (0, *part)])


def _width(table: Table, index: int) -> int:
    """Return the width of a column: headers are wrapped between words, cells only if too long."""
    words = map(len, table.columns[index].split())
    cells = (cell_len(one_line(row[index].text)) for row in table.rows)
    return min(max([1, *words, *cells]), _CELL_WIDTH if index else _NAME_WIDTH)


def _table(table: Table, widths: list[int]) -> rich.table.Table:
    made = rich.table.Table(title=table.caption or None, title_justify="left", box=box.SIMPLE)
    for index, (column, width) in enumerate(zip(table.columns, widths, strict=True)):
        justify: Literal["left", "right"] = "right" if table.numeric and index else "left"
        made.add_column(column, justify=justify, width=width, overflow="fold")
    for number, row in enumerate(table.rows):
        if number == table.rule_before:
            made.add_section()
        made.add_row(*(cell.text for cell in row))
    return made
