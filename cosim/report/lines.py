"""Drawing line plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element

from cosim.report import scale
from cosim.report.plot import Lines, Series
from cosim.report.scale import Scale
from cosim.report.svg import EM, NARROW, TOP, WIDE, add, colour, length, marker, px, tick_texts

_HEIGHT = {WIDE: 340, NARROW: 230}
_BOTTOM = 38.0


def draw_lines(root: Element, plot: Lines, width: int, slots: Mapping[str, int]) -> float:
    """Draw ``plot`` into ``root``; return the height."""
    height = float(_HEIGHT[width])
    xs = sorted({x for series in plot.series for x, _ in series.points}) or [0.0, 1.0]
    y_ends, y_ticks = scale.of_values((*plot.values, *plot.y.beside), 5, log=plot.y.log)
    log = plot.x.log and xs[0] > 0
    x_ticks = xs[:: -(-len(xs) // 8)] if log else scale.ticks(xs, 10 if width == WIDE else 5)
    ends = (xs[0], xs[-1]) if log else (x_ticks[0], x_ticks[-1])

    y_texts = tick_texts(plot.y, y_ticks)
    labels = width == WIDE and len(plot.names) > 1
    left = 10 + max(map(length, y_texts))
    right = 34 + max(map(length, plot.names)) if labels else 16.0
    x = Scale(*ends, left + 6, width - right, log)
    y = Scale(*y_ends, height - _BOTTOM, TOP, plot.y.log)

    add(root, "text", plot.y.heading, x=0, y=11, class_="axis")
    for tick, text in zip(y_ticks, y_texts, strict=True):
        at = y(tick)
        zero = "zero" if tick == 0 else "grid"
        grid = add(root, "line", x1=left, x2=width - right + 4, y1=at, y2=at, class_=zero)
        grid.attrib.update({"data-axis": "y", "data-value": repr(tick)})
        add(root, "text", text, x=left - 5, y=at + 3.8, class_="tick", text_anchor="end")
    foot = height - _BOTTOM
    for tick, text in zip(x_ticks, tick_texts(plot.x, x_ticks), strict=True):
        at = x(tick)
        mark = add(root, "line", x1=at, x2=at, y1=foot, y2=foot + 4, class_="zero")
        mark.attrib.update({"data-axis": "x", "data-value": repr(float(tick))})
        add(root, "text", text, x=at, y=foot + 16, class_="tick", text_anchor="middle")
    middle = (x.start + x.end) / 2
    add(root, "text", plot.x.label, x=middle, y=height - 5, class_="axis", text_anchor="middle")

    measured = sorted(
        (series for series in plot.series if not series.expected),
        # The policies named first are drawn last, on top of the others.
        key=lambda series: -slots[series.name],
    )
    for series in measured:
        path = _path(series, x, y)
        add(root, "path", d=path, class_=f"curve {colour(slots[series.name])}")
    for series in measured:
        for point_x, point_y in series.points:
            if point_y is not None:
                mark = marker(root, x(point_x), y(point_y), slots[series.name])
                data = {"series": series.name, "x": repr(point_x), "y": repr(point_y)}
                mark.attrib.update({f"data-{key}": value for key, value in data.items()})
                where = f"{plot.x.label} {plot.x.text(point_x)}"
                add(mark, "title", f"{series.name}, {where}: {plot.y.text(point_y)}")
    for series in plot.series:
        if series.expected:
            curve = add(root, "path", d=_path(series, x, y), class_="expected")
            curve.set("data-series", series.label)
            add(curve, "title", series.label)
    if labels:
        _end_labels(root, measured, x, y, slots)
    return height


def _path(series: Series, x: Scale, y: Scale) -> str:
    parts: list[str] = []
    pen = "M"
    for point_x, point_y in series.points:
        if point_y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{px(x(point_x))},{px(y(point_y))}")
        pen = "L"
    return "".join(parts)


def _end_labels(
    root: Element, series: Iterable[Series], x: Scale, y: Scale, slots: Mapping[str, int]
) -> None:
    """Name every curve at its right end, without one name on another."""
    ends = []
    for one in series:
        known = [(point_x, value) for point_x, value in one.points if value is not None]
        if known:
            ends.append((y(known[-1][1]), x(known[-1][0]), one.name))
    # Of curves that end together the first policy stands first.
    ends.sort(key=lambda end: (round(end[0]), slots[end[2]]))
    places = _spread([end[0] for end in ends], EM + 2.5, TOP - 8, y.start + 4)
    for (at, end_x, name), place in zip(ends, places, strict=True):
        line = f"M{px(end_x + 5)},{px(at)}L{px(x.end + 17)},{px(place)}"
        add(root, "path", d=line, class_=f"leader {colour(slots[name])}")
        marker(root, x.end + 22, place, slots[name])
        add(root, "text", name, x=x.end + 30, y=place + 4, class_="name")


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near ``wanted`` (ascending), ``gap`` apart, from ``low`` to ``high`` if they fit."""
    places = list(wanted)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    limit = max(high, low + gap * (len(places) - 1))
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places
