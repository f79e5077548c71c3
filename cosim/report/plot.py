"""What a plot shows, apart from how it is drawn (:mod:`cosim.report.draw`).

A series is named after what it is of, most often a policy; a policy has the same colour and
marker on every plot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from cosim.report import scale

COLOURS = 9
"""How many colours ``page.css`` has: ``--c0`` .. ``--c8``."""

_LINE = 0.005
"""Of the height of a plot, less than a curve is thick."""

POLICIES = ("native", "nested", "shadow", "lsp", "vtlb", "unsync", "oos", "ssp", "asp")
"""The policies that have a colour of their own, in the order of the colours."""


@dataclass(frozen=True)
class Axis:
    """``label`` says what is counted, and in which unit; ``text`` writes a value out.

    ``beside`` are values on other plots: the axis holds them too, so that plots can be compared.
    An axis is logarithmic (``log``) only where all its values are above 0.
    """

    label: str
    text: Callable[[float], str] = scale.number
    log: bool = False
    beside: tuple[float, ...] = ()

    @property
    def heading(self) -> str:
        """What stands at an axis of values."""
        return f"{self.label} (logarithmic scale)" if self.log else self.label


@dataclass(frozen=True)
class Series:
    """A curve; a point that is not known has the value None and leaves a gap."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    """``(x, y)`` by ascending x."""
    expected: bool = False
    """What theory says of the series of that name: dashed, without markers."""

    @property
    def label(self) -> str:
        """The name, which says so where it is an expectation."""
        return f"{self.name}, expected" if self.expected else self.name


@dataclass(frozen=True)
class Lines:
    """A line plot with markers; y begins at 0, unless it is logarithmic."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]

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
    """A value of one series in one group; None where it is not known."""

    value: float | None
    expected: float | None = None
    """What theory says, drawn as a line across the bar."""
    at_least: bool = False
    """The value is a lower bound."""


@dataclass(frozen=True)
class Group:
    """Bars that belong together, by the names of their series."""

    label: str
    bars: dict[str, Bar]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars in groups, from 0; on a logarithmic axis, which has no 0, dots."""

    title: str
    axis: Axis
    groups: tuple[Group, ...]
    baseline: float | None = None
    """A value to compare with, drawn as a line through all groups."""

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


def slots(*plots: Iterable[str]) -> dict[str, int]:
    """The number of the colour and marker of each series, by the names on each of ``plots``.

    A policy has always the same; a model with options (``shadow:roots=4``) has its policy's when
    no other has it.  Others have numbers that no policy here has, and no other on their plot: the
    same on every plot, as long as there are such.  Numbers from :data:`COLOURS` on are the
    colours again, with hollow markers.
    """
    groups = [list(dict.fromkeys(names)) for names in plots]
    names = list(dict.fromkeys(name for group in groups for name in group))
    given = {name: POLICIES.index(name) for name in names if name in POLICIES}
    for name in names:
        base = name.partition(":")[0]
        if name not in given and base in POLICIES and POLICIES.index(base) not in given.values():
            given[name] = POLICIES.index(base)
    policies = set(given.values())
    for group in groups:
        for name in group:
            taken = policies | {given[other] for other in group if other in given}
            # From 1: the first colour is the grey of the floor.
            given.setdefault(name, next(slot for slot in count(1) if slot not in taken))
    return {name: given[name] for name in names}


class Hidden(NamedTuple):
    """Measured curves that lie on each other."""

    names: tuple[str, ...]
    apart: float
    """The largest difference between them at any point."""


def hidden(plot: Plot) -> list[Hidden]:
    """The curves of ``plot`` that nobody can tell apart by the eye."""
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
    """What ``values`` span on the axis, in its own measure."""
    if not values:
        return 0
    return math.log(max(values) / min(values)) if y.log else max(map(abs, values))


def _seen_apart(y: Axis, one: Series, other: Series) -> float:
    """The largest distance of two curves with the same points, as :func:`_height` measures."""
    return max(
        (abs(math.log(a / b)) if y.log else abs(a - b) for a, b in _pairs(one, other)), default=0
    )


def _apart(one: Series, other: Series) -> float | None:
    """The largest difference of two curves; None where they do not have the same points."""
    if [(x, y is None) for x, y in one.points] != [(x, y is None) for x, y in other.points]:
        return None
    return max((abs(a - b) for a, b in _pairs(one, other)), default=0)


def _pairs(one: Series, other: Series) -> Iterator[tuple[float, float]]:
    for (_, a), (_, b) in zip(one.points, other.points, strict=True):
        if a is not None and b is not None:
            yield a, b
