"""What plots show, without the drawing: their numbers as tables, and curves that nobody can see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cosim.report import number_text
from cosim.report.content import Axis, Bar, Bars, Cell, Lines, Plot, PlotGroup, Series, Table

_LINE = 0.005
"""Curves that are closer than this share of a plot's height look like one."""


def of_figure(figure: PlotGroup) -> list[Table]:
    """Return the tables below ``figure``: the numbers of its plots, then its further ones."""
    return [*map(of_plot, figure.plots), *figure.tables]


def of_plot(plot: Plot) -> Table:
    """Return the numbers of ``plot``: a row for each x or group, a column for each series."""
    return _of_lines(plot) if isinstance(plot, Lines) else _of_bars(plot)


def hidden_curves(figure: PlotGroup) -> list[str]:
    """Say in words which curves of ``figure`` lie on each other."""
    notes = []
    for plot in figure.plots:
        for names, apart in hidden(plot):
            where = f"{plot.title}: " if plot.title else ""
            how = f"at most {number_text.number(apart)} apart" if apart else "equal"
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            notes.append(f"{where}{listed} are {how} at every point, one curve on the other.")
    return notes


class Hidden(NamedTuple):
    """Measured curves that lie on each other."""

    names: tuple[str, ...]
    apart: float
    """The largest difference between them at any point."""


def hidden(plot: Plot) -> list[Hidden]:
    """Return the curves of ``plot`` that the eye cannot tell apart."""
    if isinstance(plot, Bars):
        return []
    measured = [series for series in plot.series if not series.expected]
    height = _height(plot.y, [*plot.values, *plot.y.beside])
    found: list[tuple[Series, Hidden]] = []
    for series in measured:
        for index, (first, group) in enumerate(found):
            apart = _apart(first, series)
            if apart is not None and _seen_apart(plot.y, first, series) <= _LINE * height:
                group = Hidden((*group.names, series.name), max(group.apart, apart))
                found[index] = (first, group)
                break
        else:
            found.append((series, Hidden((series.name,), 0)))
    return [group for _, group in found if len(group.names) > 1]


def _height(y: Axis, values: list[float]) -> float:
    """Return what ``values`` span on the axis, in its own measure."""
    if not values:
        return 0
    return math.log(max(values) / min(values)) if y.log else max(map(abs, values))


def _seen_apart(y: Axis, one: Series, other: Series) -> float:
    """Return the largest distance of two curves with the same points, as :func:`_height`."""
    return max(
        (abs(math.log(a / b)) if y.log else abs(a - b) for a, b in _pairs(one, other)), default=0
    )


def _apart(one: Series, other: Series) -> float | None:
    """Return the largest difference of two curves; None if their points differ."""
    if [(x, y is None) for x, y in one.points] != [(x, y is None) for x, y in other.points]:
        return None
    return max((abs(a - b) for a, b in _pairs(one, other)), default=0)


def _pairs(one: Series, other: Series) -> Iterator[tuple[float, float]]:
    for (_, a), (_, b) in zip(one.points, other.points, strict=True):
        if a is not None and b is not None:
            yield a, b


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
            bound = bar.at_least and not expected
            cells.append(Cell(f"\u2265 {cell.text}", cell.value) if bound else cell)
        rows.append(tuple(cells))
    labels = (f"{name}, expected" if expected else name for name, expected in columns)
    return Table(_caption(plot, plot.axis.label), ("", *labels), tuple(rows))


def _bars_of(plot: Bars, name: str) -> Iterable[Bar]:
    return (group.bars[name] for group in plot.groups if name in group.bars)


def _caption(plot: Plot, label: str) -> str:
    return f"{plot.title}: {label}" if plot.title else label
