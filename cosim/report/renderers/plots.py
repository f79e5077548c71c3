"""Plots as inline SVG: no script, no font; colours come from the style sheet of the page.

matplotlib draws them.  Its colours here are only names: ``#ff00NN`` stands for the style sheet's
``--cNN``, so that a plot follows the reader's light or dark scheme, and paper.  Every mark carries
its numbers as ``data-`` attributes, and a ``<title>`` that browsers show when the pointer rests on
it.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cosim.report import number_text
from cosim.report.content import Axis, Bar, Bars, Lines, Plot, Series
from cosim.report.series_looks import Look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Transform

WIDE, NARROW = 720, 340
"""Widths in CSS pixels: of a plot with the column to itself; of one on a phone or among others."""

EXPECTED_CURVE = (
    '<svg class="swatch" viewBox="0 0 24 12" aria-hidden="true">'
    '<path d="M1,6H23" class="expected"/></svg>'
)
EXPECTED_BAR = (
    '<svg class="swatch" viewBox="0 0 24 12" aria-hidden="true">'
    '<path d="M12,-1V13" class="target"/></svg>'
)
"""What theory says, in a legend."""

_HEIGHT = {WIDE: 340, NARROW: 230}
_TOP, _BOTTOM = 26.0, 38.0
"""Room for the label of the values, and for the labels of x."""
_EM = 11.0
"""Size of the text in a plot, as in ``page.css``."""
_NARROWEST = 60.0
"""Of the axes, however long the names beside them are."""
_BAR, _GAP, _APART, _HEAD, _FOOT = 11.0, 3.0, 9.0, 20.0, 18.0
"""Of a bar chart: a bar, the space below it, below a group, the name of a group, the ticks."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "p", "X", "h")
_SHEET = ("ink", "soft", "hair", "rule", "paper")
_INK, _SOFT, _HAIR, _RULE, _PAPER = (f"#fe00{number:02x}" for number in range(5))
_VARIABLES = dict(zip((_INK, _SOFT, _HAIR, _RULE, _PAPER), _SHEET, strict=True))
"""Colours that are no series', by what the style sheet calls them."""
_EXPECTED: dict[str, Any] = {"color": _INK, "linewidth": 1.25, "linestyle": (0, (1.6, 3.2))}
"""Draws what theory says."""
_TEXTS = {"name": _INK, "group": _INK, "value": _INK, "axis": _SOFT, "tick": _SOFT}


def svg(plot: Plot, width: int, looks: Mapping[str, Look], name: str, about: str) -> str:
    """Return ``plot`` as an ``<svg>`` element of ``width`` (:data:`WIDE` or :data:`NARROW`).

    :param looks: of the series (:func:`cosim.report.series_looks.looks`).
    :param name: begins the ids in the element; unique on the page.
    :param about: what a reader hears who cannot see the plot.
    """
    with _settings(name):
        if isinstance(plot, Lines):
            root = _lines(plot, width, looks).element()
        else:
            root = _bars(plot, width, looks).element()
    heading = {"title": plot.title or about, "desc": about}
    for place, (tag, text) in enumerate(heading.items()):
        made = Element(tag, {"id": f"{name}-{tag}"})
        made.text = text
        root.insert(place, made)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title {name}-desc"})
    return ElementTree.tostring(root, encoding="unicode")


def swatch(look: Look, name: str) -> str:
    """Return the sign of a curve for a legend; ``name`` is unique on the page."""
    from matplotlib.lines import Line2D

    with _settings(name):
        drawing = _Drawing(24, 12)
        drawing.add(Line2D([1, 23], [6, 6], color=_colour(look), linewidth=2), "curve")
        drawing.marker(12, 6, look)
        root = drawing.element()
    root.attrib.update({"class": "swatch", "aria-hidden": "true"})
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """Draw with our settings, whatever the user's own are; ``name`` makes ids unique."""
    # It tells of its cache of fonts, which no plot here needs, while it is imported.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Most commands draw nothing and need not wait for it.
    import matplotlib as mpl

    usual = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    ours: Any = {
        **usual,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "path.simplify": False,
        "font.size": _EM,
        "axes.linewidth": 0,
        "lines.markersize": 4,
    }
    with mpl.rc_context(ours):
        yield


def _colour(look: Look) -> str:
    return f"#ff00{look.colour:02x}"


@dataclass
class _Mark:
    """What the drawn elements of an artist are given afterwards."""

    kind: str
    data: list[Mapping[str, object]] = field(default_factory=list)
    """For each element, ``title`` and ``data-`` attributes without that prefix."""
    second: str = ""
    """Of a text: what follows it in another colour."""


class _Drawing:
    """A figure of matplotlib's in pixels from the top left, and what its artists stand for."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)
        self._marks: dict[str, _Mark] = {}

    def axes(self, left: float, top: float, right: float, foot: float) -> Axes:
        """Return axes between these edges."""
        w, h = self.width, self.height
        axes = self.figure.add_axes((left / w, 1 - foot / h, (right - left) / w, (foot - top) / h))
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        return axes

    def note(
        self, artist: Artist, kind: str, *data: Mapping[str, object], second: str = ""
    ) -> None:
        """Say what ``artist`` is: a class of the style sheet, and the data of its elements."""
        name = f"m{len(self._marks)}"
        artist.set_gid(name)
        artist.set_clip_on(False)
        self._marks[name] = _Mark(kind, list(data), second)

    def add(self, line: Line2D, kind: str) -> None:
        """Add ``line``, whose places are pixels."""
        line.set_transform(self._pixels())
        self.figure.add_artist(line)
        self.note(line, kind)

    def text(
        self, x: float, y: float, text: str, kind: str, align: str = "left", second: str = ""
    ) -> None:
        """Write ``text`` at a pixel."""
        if not text:
            return
        made = self.figure.text(
            x, y, text, transform=self._pixels(), ha=align, va="baseline", color=_TEXTS[kind]
        )
        self.note(made, kind, second=second)

    def marker(self, x: float, y: float, look: Look) -> None:
        """Draw the marker of a series at a pixel."""
        from matplotlib.lines import Line2D

        self.add(Line2D([x], [y], **_marker(look)), "mark")

    def place(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        px, py = axes.transData.transform((x, y))
        return float(px), self.height - float(py)

    def _pixels(self) -> Transform:
        from matplotlib.transforms import Affine2D

        return Affine2D().scale(1, -1).translate(0, self.height)

    def element(self) -> Element:
        """Return the ``<svg>`` element."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        file = io.StringIO()
        canvas: Any = FigureCanvasSVG(self.figure)
        canvas.print_svg(file, metadata={"Date": None})
        root = _read(file.getvalue())
        for name, mark in self._marks.items():
            (group,) = (one for one in root.iter("g") if one.get("id") == name)
            _describe(group, mark)
        _tidy(root)
        return root


def _marker(look: Look) -> dict[str, Any]:
    colour = _colour(look)
    return {
        "linestyle": "none",
        "marker": _MARKERS[look.marker % len(_MARKERS)],
        "markersize": 7.5,
        "markerfacecolor": _PAPER if look.hollow else colour,
        "markeredgecolor": colour if look.hollow else _PAPER,
        "markeredgewidth": 1.5 if look.hollow else 0.75,
    }


# -- what matplotlib wrote -----------------------------------------------------------------------

_LINK = "{http://www.w3.org/1999/xlink}href"


def _read(text: str) -> Element:
    """Parse the drawing, without the namespace of SVG, which a page implies."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _describe(group: Element, mark: _Mark) -> None:
    """Give the elements in ``group`` their class, data and title."""
    group.set("class", mark.kind)
    hidden = {element for defs in group.iter("defs") for element in defs.iter()}
    drawn = [
        one for one in group.iter() if one.tag in ("path", "use", "text") and one not in hidden
    ]
    for element, data in zip(drawn, mark.data, strict=bool(mark.data)):
        for key, value in data.items():
            if key == "title":
                SubElement(element, "title").text = str(value)
            else:
                element.set(f"data-{key}", value if isinstance(value, str) else repr(value))
    if mark.second:
        drawn[0].text = f"{drawn[0].text} "
        SubElement(drawn[0], "tspan").text = mark.second


def _tidy(root: Element) -> None:
    """Leave to the page what is the page's: sizes, fonts, colours, ids."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        del root.attrib[name]
    linked = {element.get(_LINK, "").removeprefix("#") for element in root.iter("use")}
    for element in root.iter():
        if "id" in element.attrib and element.attrib["id"] not in linked:
            del element.attrib["id"]
        if element.tag == "use":
            # Without its old prefix, which HTML does not need.
            element.set("href", element.attrib.pop(_LINK))
        element.attrib.pop("clip-path", None)
        if element.tag == "text":
            element.attrib.pop("transform", None)
        if "style" in element.attrib:
            style = re.sub(r"font-(size|family):[^;]*;? ?", "", element.attrib["style"])
            element.set("style", re.sub(r"#f[ef]00\w\w", _variable, style))


def _variable(found: re.Match[str]) -> str:
    name = _VARIABLES.get(found[0])
    return f"var(--{name or 'c' + str(int(found[0][-2:], 16))})"


# -- line plots ----------------------------------------------------------------------------------


def _lines(plot: Lines, width: int, looks: Mapping[str, Look]) -> _Drawing:
    height = _HEIGHT[width]
    drawing = _Drawing(width, height)
    xs = sorted({x for series in plot.series for x, _ in series.points}) or [0.0, 1.0]
    if plot.places:
        xs = sorted({*xs, *(place.x for place in plot.places)})
    y_ends, y_ticks = _ticks((*plot.values, *plot.y.beside), 5, log=plot.y.log)
    if plot.x.log and xs[0] > 0:
        x_ends, x_ticks = (xs[0], xs[-1]), xs[:: -(-len(xs) // 8)]
    else:
        x_ends, x_ticks = _ticks(xs, 10 if width == WIDE else 5, log=False)
    y_texts = _tick_texts(plot.y, y_ticks)
    named = width == WIDE and len(plot.names) > 1
    left = 16 + max(map(_length, y_texts))
    right = width - (34 + max(map(_length, plot.names)) if named else 16)
    right = max(right, left + _NARROWEST)
    foot = height - _BOTTOM

    axes = drawing.axes(left, _TOP, right, foot)
    _scale(axes, "x", x_ends, x_ticks, log=plot.x.log and xs[0] > 0)
    _scale(axes, "y", y_ends, y_ticks, log=plot.y.log)
    drawing.text(0, 11, plot.y.heading, "axis")
    drawing.text((left + right) / 2, height - 5, plot.x.label, "axis", "center")
    for tick, text in zip(y_ticks, y_texts, strict=True):
        line = axes.axhline(tick, color=_RULE if tick == 0 else _HAIR, linewidth=1, zorder=1)
        drawing.note(line, "grid", {"axis": "y", "value": tick})
        at = drawing.place(axes, x_ends[0], tick)
        drawing.text(left - 11, at[1] + 3.8, text, "tick", "right")
    for tick, text in zip(x_ticks, _tick_texts(plot.x, x_ticks), strict=True):
        x, _ = drawing.place(axes, tick, y_ends[0])
        (line,) = axes.plot([tick], [y_ends[0]], marker=3, color=_RULE, linestyle="none")
        drawing.note(line, "grid", {"axis": "x", "value": float(tick)})
        drawing.text(x, foot + 16, text, "tick", "center")

    _places(drawing, axes, plot, right)
    measured = [series for series in plot.series if not series.expected]
    # The policies named first are drawn last, on top of the others.
    measured.sort(key=lambda series: -looks[series.name].marker)
    for series in plot.series:
        _curve(drawing, axes, series, looks[series.name])
    for order, series in enumerate(measured):
        known = [(x, y) for x, y in series.points if y is not None]
        data = [_point(plot, series, x, y) for x, y in known]
        (marks,) = axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            zorder=4 + order / 100,
            **_marker(looks[series.name]),
        )
        drawing.note(marks, "mark", *data)
    if named:
        _end_labels(drawing, axes, measured, looks, right, foot)
    return drawing


def _places(drawing: _Drawing, axes: Axes, plot: Lines, right: float) -> None:
    """Draw vertical lines, with their labels as far as there is room."""
    free = 0.0
    for place in plot.places:
        line = axes.axvline(place.x, color=_SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=2)
        title = f"{place.label}, {plot.x.label} {plot.x.text(place.x)}"
        drawing.note(line, "place", {"label": place.label, "x": place.x, "title": title})
        at, _ = drawing.place(axes, place.x, axes.get_ylim()[1])
        length = _length(place.label)
        if at >= free and at + 4 + length <= right:
            drawing.text(at + 4, _TOP + 8, place.label, "tick")
            free = at + 4 + length


def _curve(drawing: _Drawing, axes: Axes, series: Series, look: Look) -> None:
    xs = [x for x, _ in series.points]
    ys = [math.nan if y is None else y for _, y in series.points]
    if series.expected:
        (line,) = axes.plot(xs, ys, **_EXPECTED, zorder=5)
    else:
        order = 3 - look.marker / 100
        (line,) = axes.plot(xs, ys, color=_colour(look), linewidth=2, zorder=order)
    data = {"series": series.label, "title": series.label}
    drawing.note(line, "expected" if series.expected else "curve", data)


def _point(plot: Lines, series: Series, x: float, y: float) -> dict[str, object]:
    where = f"{plot.x.label} {plot.x.text(x)}"
    title = f"{series.name}, {where}: {plot.y.text(y)}"
    return {"series": series.name, "x": x, "y": y, "title": title}


def _end_labels(
    drawing: _Drawing,
    axes: Axes,
    series: Iterable[Series],
    looks: Mapping[str, Look],
    right: float,
    foot: float,
) -> None:
    """Name every curve at its right end, without one name on another."""
    from matplotlib.lines import Line2D

    ends = []
    for one in series:
        known = [(x, y) for x, y in one.points if y is not None]
        if known:
            x, y = drawing.place(axes, *known[-1])
            ends.append((y, x, one.name))
    # Of curves that end together the first policy stands first.
    ends.sort(key=lambda end: (round(end[0]), looks[end[2]].marker))
    places = _spread([end[0] for end in ends], _EM + 2.5, _TOP - 8, foot + 4)
    for (y, x, name), place in zip(ends, places, strict=True):
        colour = _colour(looks[name])
        leader = Line2D([x + 5, right + 17], [y, place], color=colour, linewidth=0.75)
        drawing.add(leader, "leader")
        drawing.marker(right + 22, place, looks[name])
        drawing.text(right + 30, place + 4, name, "name")


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places near ``wanted`` (ascending), ``gap`` apart, from ``low`` to ``high``."""
    places = list(wanted)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    limit = max(high, low + gap * (len(places) - 1))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


# -- bars ----------------------------------------------------------------------------------------


def _bars(plot: Bars, width: int, looks: Mapping[str, Look]) -> _Drawing:
    """Draw grouped bars: horizontal, so that they stay readable on a phone, however many."""
    axis = plot.axis
    bars = [(name, bar) for group in plot.groups for name, bar in group.bars.items()]
    ends, ticks = _ticks((*plot.values, *axis.beside), 4, log=axis.log)
    top = _TOP - 8
    foot = top + len(bars) * (_BAR + _GAP)
    foot += sum(_APART + (_HEAD if group.label else 0) for group in plot.groups)
    drawing = _Drawing(width, foot + _FOOT)
    room = max((_length(f"{_bar_text(axis, bar)} {name}") for name, bar in bars), default=0.0)
    # y are pixels.
    axes = drawing.axes(2, top, max(_NARROWEST, width - 10 - room), foot)
    _scale(axes, "x", ends, ticks, log=axis.log)
    axes.set_ylim(foot, top)

    drawing.text(0, 11, axis.heading, "axis")
    for tick, text in zip(ticks, _tick_texts(axis, ticks), strict=True):
        line = axes.axvline(tick, color=_RULE if tick == 0 else _HAIR, linewidth=1, zorder=1)
        drawing.note(line, "grid", {"axis": "x", "value": tick})
        x, _ = drawing.place(axes, tick, foot)
        drawing.text(x, foot + 13, text, "tick", "left" if x < 8 else "center")
    if plot.baseline is not None:
        drawing.note(axes.axvline(plot.baseline, **_EXPECTED), "expected")
    for group in plot.groups:
        if group.label:
            drawing.text(4, top + 14, group.label, "group")
            top += _HEAD
        for name, bar in group.bars.items():
            data: dict[str, object] = {"group": group.label, "series": name}
            _bar(drawing, axes, axis, bar, data, top, looks[name])
            top += _BAR + _GAP
        top += _APART
    return drawing


def _bar(
    drawing: _Drawing,
    axes: Axes,
    axis: Axis,
    bar: Bar,
    data: dict[str, object],
    top: float,
    look: Look,
) -> None:
    name, text, colour = str(data["series"]), _bar_text(axis, bar), _colour(look)
    low = axes.get_xlim()[0] if axis.log else 0.0
    end, middle = low, top + _BAR / 2
    if bar.value is not None:
        end = max(low, bar.value)
        data = {**data, "x": bar.value, "title": f"{name}: {text}"}
        if axis.log:
            (stem,) = axes.plot([low, end], [middle] * 2, color=colour, linewidth=1, alpha=0.45)
            drawing.note(stem, "stem")
            drawing.note(axes.plot([end], [middle], **_marker(look))[0], "mark", data)
        else:
            look_of: dict[str, Any] = {"color": colour}
            if bar.at_least:
                look_of = {"facecolor": (colour, 0.3), "edgecolor": colour, "linestyle": "--"}
            (box,) = axes.barh([middle], [bar.value], height=_BAR, **look_of)
            drawing.note(box, "bar", data)
    if bar.expected is not None:
        at = bar.expected
        ys = [top - 2, top + _BAR + 2]
        (line,) = axes.plot([at] * 2, ys, color=_INK, linewidth=2, solid_capstyle="butt")
        drawing.note(line, "target", {"title": f"{name}, expected: {axis.text(at)}"})
        end = max(end, at)
    # The name stands at the bar, so that nobody has to tell it by the colour.
    x, _ = drawing.place(axes, end, middle)
    drawing.text(x + (8 if axis.log else 4), top + 9.2, text, "value", second=name)


def _bar_text(axis: Axis, bar: Bar) -> str:
    if bar.value is None:
        return "not known"
    return f"\u2265 {axis.text(bar.value)}" if bar.at_least else axis.text(bar.value)


# -- axes ----------------------------------------------------------------------------------------


def _scale(
    axes: Axes, which: str, ends: tuple[float, float], ticks: Sequence[float], *, log: bool
) -> None:
    """Set an axis; ticks and their texts are drawn apart, so that they carry their values."""
    axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": ends})
    axes.set_xticks([])
    axes.set_yticks([])
    axes.minorticks_off()


def _ticks(
    values: Iterable[float], about: int, *, log: bool
) -> tuple[tuple[float, float], list[float]]:
    """Return the ends of an axis around ``values``, from 0 if it is not logarithmic, and ticks.

    Ends and ticks are 1, 2 or 5 times a power of ten, no fractions if all values are whole.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    known = list(values)
    if not log:
        known = [0.0, *known]
        low, high = min(known), max(known)
        if high - low < 1e-300:
            high = low + max(1.0, abs(low) / 1000)
        whole = all(value == int(value) for value in known)
        linear = MaxNLocator(about, steps=[1, 2, 5, 10], integer=whole, min_n_ticks=1)
        # Through text: 3 * 0.1 is not 0.3.
        found = [float(f"{tick:.12g}") for tick in linear.tick_values(low, high)]
        return (found[0], found[-1]), found
    locator = LogLocator(subs=(1, 2, 5), numticks=1000)
    steps = locator.tick_values(min(known) / 10, max(known) * 10)
    rounded = [float(f"{step:.0e}") for step in steps]
    first = max(step for step in rounded if step <= min(known))
    last = min(step for step in rounded if step >= max(known) and step > first)
    inside = [step for step in rounded if first <= step <= last]
    if len(inside) > about + 3:
        inside = [step for step in inside if f"{step:e}".startswith("1")]
    return (first, last), inside


def _tick_texts(axis: Axis, ticks: Sequence[float]) -> list[str]:
    """Return the values at the ticks: shares in per cent, all others in short."""
    if axis.text is number_text.percent:
        return [axis.text(tick) for tick in ticks]
    if axis.log:
        return [number_text.short(tick, tick) for tick in ticks]
    return [number_text.short(tick, max(map(abs, ticks))) for tick in ticks]


def _length(text: str) -> float:
    """Return the pixels that ``text`` takes at most, in the wide sans-serif fonts."""
    return 0.62 * _EM * len(text)
