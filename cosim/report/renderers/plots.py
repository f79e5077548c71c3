"""Plots as inline SVG: no script, no font, no colour; the style sheet of the page has these.

matplotlib computes where everything stands.  Of what it writes, the page takes only the shapes.
Each gets classes of the style sheet, such as ``curve c3`` for a curve in colour 3 of the palette,
so that a plot follows the reader's light or dark scheme, and paper.  Every mark carries its numbers
as ``data-`` attributes, and a ``<title>`` that browsers show if the pointer rests on it.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cosim.report import number_text
from cosim.report.content import Axis, Bar, Bars, Lines, Plot, Series
from cosim.report.series_looks import Look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

WIDE, NARROW = 720, 340
"""Widths in CSS pixels: of a plot with the column to itself; of one on a phone or among others."""

_SIGN = '<svg viewBox="0 0 24 12" class="swatch" aria-hidden="true"><path class="{}" d="{}"/></svg>'
EXPECTED_CURVE, EXPECTED_BAR = (
    _SIGN.format("expected", "M1 6H23"),
    _SIGN.format("target", "M12-1V13"),
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
_PLACE_ROWS = 4
"""Of the labels of places that are close to each other."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "p", "X", "h")


def svg(plot: Plot, width: int, looks: Mapping[str, Look], name: str, about: str) -> str:
    """Return ``plot`` as an ``<svg>`` element of ``width`` (:data:`WIDE` or :data:`NARROW`).

    :param looks: of the series (:func:`cosim.report.series_looks.looks`).
    :param name: begins the ids in the element; unique on the page.
    :param about: what a reader hears who cannot see the plot.
    """
    with _settings():
        drawn = _lines(plot, width, looks) if isinstance(plot, Lines) else _bars(plot, width, looks)
        root = drawn.element(name)
    title = Element("title", {"id": f"{name}-title"})
    title.text = about
    root.insert(0, title)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title"})
    return ElementTree.tostring(root, encoding="unicode")


def swatch(look: Look, name: str) -> str:
    """Return the sign of a curve for a legend; ``name`` is unique on the page."""
    with _settings():
        drawing = _Drawing(24, 12)
        drawing.line(1, 6, 23, 6, f"curve {_colour(look)}")
        drawing.marker(12, 6, look)
        root = drawing.element(name)
    root.attrib.update({"class": "swatch", "aria-hidden": "true"})
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def _settings() -> Iterator[None]:
    """Draw with matplotlib's defaults, whatever the user's own settings are."""
    # It tells of its cache of fonts, which no plot here needs, while it is imported.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Most commands draw nothing and need not wait for it.
    import matplotlib as mpl

    usual: Any = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    with mpl.rc_context({**usual, "path.simplify": False}):
        yield


class _Drawing:
    """A drawing in pixels from the top left: a figure of matplotlib, and elements of ours."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self._elements: list[Element] = []
        """Shapes and texts that are not matplotlib's, and places for those that are."""
        self._data: dict[str, Sequence[Mapping[str, object]]] = {}

    def axes(self, left: float, top: float, right: float, foot: float) -> Axes:
        """Return axes between these edges."""
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, 1 - foot / h, (right - left) / w, (foot - top) / h))

    def note(self, artist: Artist, kind: str, *data: Mapping[str, object]) -> None:
        """Take what ``artist`` draws into the drawing.

        :param kind: classes of the style sheet.
        :param data: for each shape, ``title`` and ``data-`` attributes without that prefix.
        """
        name = f"m{len(self._data)}"
        artist.set_gid(name)
        artist.set_clip_on(False)
        self._data[name] = data
        self._elements.append(Element("g", {"id": name, "class": kind}))

    def line(self, x: float, y: float, to_x: float, to_y: float, kind: str) -> None:
        """Draw a line between two pixels."""
        ends = _path(f"M {x} {y} L {to_x} {to_y}")
        self._elements.append(Element("path", {"class": kind, "d": ends}))

    def text(
        self, x: float, y: float, text: str, kind: str, anchor: str = "", second: str = ""
    ) -> None:
        """Write ``text`` at a pixel, and ``second`` after it in another colour."""
        made = Element("text", {"class": kind, "x": _short(x), "y": _short(y)})
        if anchor:
            made.set("text-anchor", anchor)
        made.text = text
        if second:
            made.text += " "
            SubElement(made, "tspan").text = second
        if text:
            self._elements.append(made)

    def marker(self, x: float, y: float, look: Look) -> None:
        """Draw the marker of a series at a pixel."""
        from matplotlib.lines import Line2D
        from matplotlib.transforms import Affine2D

        pixels = Affine2D().scale(1, -1).translate(0, self.height)
        line = self.figure.add_artist(Line2D([x], [y], transform=pixels, **_marker(look)))
        self.note(line, _mark(look))

    def place(self, axes: Axes, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        px, py = axes.transData.transform((x, y))
        return float(px), self.height - float(py)

    def element(self, name: str) -> Element:
        """Return the ``<svg>`` element: shapes in the order of their drawing, texts above them.

        :param name: begins the ids of the markers.
        """
        groups = self._drawn() if self._data else {}
        ids: dict[str, str] = {}
        root = Element("svg", {"viewBox": f"0 0 {self.width:g} {self.height:g}"})
        defs = SubElement(root, "defs")
        for element in sorted(self._elements, key=lambda one: one.tag == "text"):
            if element.tag != "g":
                root.append(element)
                continue
            data = self._data[element.attrib["id"]]
            shapes = groups[element.attrib["id"]]
            for shape, numbers in zip(shapes, data or [{}] * len(shapes), strict=True):
                made = SubElement(root, shape.tag, {"class": element.attrib["class"]})
                if shape.tag == "path":
                    made.set("d", _path(shape.attrib["d"]))
                else:
                    outline = _path(shape.attrib["marker"])
                    if outline not in ids:
                        ids[outline] = f"{name}-{len(ids)}"
                        SubElement(defs, "path", {"id": ids[outline], "d": outline})
                    made.set("href", f"#{ids[outline]}")
                    made.attrib |= {key: _short(float(shape.attrib[key])) for key in "xy"}
                _describe(made, numbers)
        if not ids:
            root.remove(defs)
        return root

    def _drawn(self) -> dict[str, list[Element]]:
        """Return the shapes that matplotlib draws for each artist that was noted."""
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        file = io.StringIO()
        canvas: Any = FigureCanvasSVG(self.figure)
        canvas.print_svg(file, metadata={"Date": None})
        root = ElementTree.fromstring(file.getvalue())
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        outlines = {f"#{one.get('id')}": one for one in root.iterfind(".//defs/path")}
        for use in root.iter("use"):
            outline = outlines[use.attrib["{http://www.w3.org/1999/xlink}href"]]
            use.set("marker", outline.attrib["d"])
        drawn = {}
        for group in root.iter("g"):
            if group.get("id") in self._data:
                found = [one for one in group.iter() if one.tag in ("path", "use")]
                drawn[group.attrib["id"]] = [one for one in found if "id" not in one.attrib]
        return drawn


def _describe(element: Element, data: Mapping[str, object]) -> None:
    for key, value in data.items():
        if key == "title":
            SubElement(element, "title").text = str(value)
        else:
            # A whole number needs no fraction.
            text = f"{value}".removesuffix(".0") if isinstance(value, float) else f"{value}"
            element.set(f"data-{key}", text)


def _path(d: str) -> str:
    """Return a path with two decimal places and no blank that is not needed."""
    short = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda found: _short(float(found[0])), d)
    return re.sub(r" *([A-Za-z]) *", r"\1", short).strip()


def _short(pixels: float) -> str:
    # matplotlib writes six places.  The same place rounds the same from these and from all digits.
    return f"{round(pixels, 5):.2f}".rstrip("0").rstrip(".")


def _colour(look: Look) -> str:
    return f"c{look.colour}"


def _mark(look: Look) -> str:
    return f"mark {_colour(look)}{' hollow' if look.hollow else ''}"


def _marker(look: Look) -> dict[str, Any]:
    marker = _MARKERS[look.marker % len(_MARKERS)]
    return {"linestyle": "none", "marker": marker, "markersize": 7.5}


# -- line plots ----------------------------------------------------------------------------------


def _lines(plot: Lines, width: int, looks: Mapping[str, Look]) -> _Drawing:
    height = _HEIGHT[width]
    drawing = _Drawing(width, height)
    xs = sorted({x for series in plot.series for x, _ in series.points}) or [0.0, 1.0]
    log_x = plot.x.log and xs[0] > 0
    xs = sorted({*xs, xs[-1] + plot.step, *(place.x for place in plot.places)})
    y_ends, y_ticks = _ticks((*plot.values, *plot.y.beside), 5, log=plot.y.log)
    if log_x:
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
    _scale(axes, "x", x_ends, log=log_x)
    _scale(axes, "y", y_ends, log=plot.y.log)
    drawing.text(0, 11, plot.y.heading, "axis")
    drawing.text((left + right) / 2, height - 5, plot.x.label, "axis", "middle")
    for tick, text in zip(y_ticks, y_texts, strict=True):
        drawing.note(axes.axhline(tick), _grid(tick), {"axis": "y", "value": tick})
        _, y = drawing.place(axes, x_ends[0], tick)
        drawing.text(left - 11, y + 3.8, text, "tick", "end")
    for tick, text in zip(x_ticks, _tick_texts(plot.x, x_ticks), strict=True):
        # A short line below the axis.
        (line,) = axes.plot([tick], [y_ends[0]], linestyle="none", marker=3, markersize=4)
        drawing.note(line, "grid zero", {"axis": "x", "value": float(tick)})
        x, _ = drawing.place(axes, tick, y_ends[0])
        drawing.text(x, foot + 16, text, "tick", "middle")

    _places(drawing, axes, plot, right)
    # The policies named first are drawn last, on top of the others.
    below = sorted(plot.series, key=lambda one: (one.expected, -looks[one.name].marker))
    below = [series for series in below if _known(series)]
    for series in below:
        points = [*series.points]
        if plot.step:
            points.append((points[-1][0] + plot.step, points[-1][1]))
        ys = [math.nan if y is None else y for _, y in points]
        drawn = "steps-post" if plot.step else "default"
        (line,) = axes.plot([x for x, _ in points], ys, drawstyle=drawn)
        kind = "expected" if series.expected else f"curve {_colour(looks[series.name])}"
        drawing.note(line, kind, {"series": series.label, "title": series.label})
    measured = [series for series in below if not series.expected]
    for series in measured if not plot.step else ():
        known = _known(series)
        look = looks[series.name]
        (marks,) = axes.plot([x for x, _ in known], [y for _, y in known], **_marker(look))
        drawing.note(marks, _mark(look), *(_point(plot, series, x, y) for x, y in known))
    if named:
        _end_labels(drawing, axes, measured, looks, right, foot, plot.step)
    return drawing


def _known(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in series.points if y is not None]


def _places(drawing: _Drawing, axes: Axes, plot: Lines, right: float) -> None:
    """Draw vertical lines, with their labels in the first of some rows that has room."""
    free = [0.0] * _PLACE_ROWS
    for place in plot.places:
        title = f"{place.label}, {plot.x.label} {plot.x.text(place.x)}"
        data = {"label": place.label, "x": place.x, "title": title}
        drawing.note(axes.axvline(place.x), "place", data)
        at, _ = drawing.place(axes, place.x, axes.get_ylim()[1])
        end = at + 4 + _length(place.label)
        row = next((row for row, left in enumerate(free) if at >= left and end <= right), None)
        if row is not None:
            drawing.text(at + 4, _TOP + 8 + row * (_EM + 2), place.label, "place-name")
            free[row] = end


def _point(plot: Lines, series: Series, x: float, y: float) -> dict[str, object]:
    title = f"{series.name}, {plot.x.label} {plot.x.text(x)}: {plot.y.text(y)}"
    return {"series": series.name, "x": x, "y": y, "title": title}


def _end_labels(
    drawing: _Drawing,
    axes: Axes,
    series: Iterable[Series],
    looks: Mapping[str, Look],
    right: float,
    foot: float,
    step: float,
) -> None:
    """Name every curve at its right end, without one name on another."""
    ends = []
    for one in series:
        last, value = _known(one)[-1]
        x, y = drawing.place(axes, last + step, value)
        ends.append((y, x, one.name))
    # Of curves that end together the first policy stands first.
    ends.sort(key=lambda end: (round(end[0]), looks[end[2]].marker))
    places = _spread([end[0] for end in ends], _EM + 2.5, _TOP - 8, foot + 4)
    for (y, x, name), place in zip(ends, places, strict=True):
        look = looks[name]
        drawing.line(x + 5, y, right + 17, place, f"leader {_colour(look)}")
        drawing.marker(right + 22, place, look)
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
    _scale(axes, "x", ends, log=axis.log)
    axes.set_ylim(foot, top)

    drawing.text(0, 11, axis.heading, "axis")
    for tick, text in zip(ticks, _tick_texts(axis, ticks), strict=True):
        drawing.note(axes.axvline(tick), _grid(tick), {"axis": "x", "value": tick})
        x, _ = drawing.place(axes, tick, foot)
        drawing.text(x, foot + 13, text, "tick", "" if x < 8 else "middle")
    for group in plot.groups:
        if group.label:
            drawing.text(4, top + 14, group.label, "group")
            top += _HEAD
        for name, bar in group.bars.items():
            data: dict[str, object] = {"group": group.label, "series": name}
            _bar(drawing, axes, axis, bar, data, top, looks[name])
            top += _BAR + _GAP
        top += _APART
    if plot.baseline is not None:
        drawing.note(axes.axvline(plot.baseline), "expected")
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
    name, text = str(data["series"]), _bar_text(axis, bar)
    low = axes.get_xlim()[0] if axis.log else 0.0
    end, middle = low, top + _BAR / 2
    if bar.value is not None:
        end = max(low, bar.value)
        data = {**data, "x": bar.value, "title": f"{name}: {text}"}
        if axis.log:
            (stem,) = axes.plot([low, end], [middle] * 2)
            drawing.note(stem, f"stem {_colour(look)}")
            drawing.note(axes.plot([end], [middle], **_marker(look))[0], _mark(look), data)
        else:
            (box,) = axes.barh([middle], [bar.value], height=_BAR)
            drawing.note(box, f"bar {_colour(look)}{' least' if bar.at_least else ''}", data)
    if bar.expected is not None:
        (line,) = axes.plot([bar.expected] * 2, [top - 2, top + _BAR + 2])
        drawing.note(line, "target", {"title": f"{name}, expected: {axis.text(bar.expected)}"})
        end = max(end, bar.expected)
    # The name stands at the bar, so that nobody has to tell it by the colour.
    x, _ = drawing.place(axes, end, middle)
    drawing.text(x + (8 if axis.log else 4), top + 9.2, text, "value", second=name)


def _bar_text(axis: Axis, bar: Bar) -> str:
    if bar.value is None:
        return "not known"
    return f"\u2265 {axis.text(bar.value)}" if bar.at_least else axis.text(bar.value)


# -- axes ----------------------------------------------------------------------------------------


def _scale(axes: Axes, which: str, ends: tuple[float, float], *, log: bool) -> None:
    """Set an axis; its ticks are drawn apart, so that they carry their values."""
    axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": ends})
    axes.set_axis_off()


def _grid(tick: float) -> str:
    return "grid zero" if tick == 0 else "grid"


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
        # matplotlib takes numbers below 1e-287 for 0, and then has ticks of both signs.
        if high - low < 1e-280:
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
