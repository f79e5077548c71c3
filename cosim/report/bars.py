"""Drawing grouped bars: horizontal, so that they stay readable on a phone, however many."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree.ElementTree import Element

from cosim.report import scale
from cosim.report.plot import Axis, Bar, Bars
from cosim.report.scale import Scale
from cosim.report.svg import TOP, add, colour, length, marker, px, tick_texts

_BAR, _GAP = 11.0, 3.0
_HEAD = 20.0
"""Room for the name of a group above its bars."""
_APART = 9.0
_FOOT = 18.0


def draw_bars(root: Element, plot: Bars, width: int, slots: Mapping[str, int]) -> float:
    """Draw ``plot`` into ``root``; return the height."""
    bars = [(name, bar) for group in plot.groups for name, bar in group.bars.items()]
    ends, ticks = scale.of_values((*plot.values, *plot.axis.beside), 4, log=plot.axis.log)
    texts = (f"{_text(plot.axis, bar)} {name}" for name, bar in bars)
    room = width - 10 - max(map(length, texts), default=0.0)
    x = Scale(*ends, 2, room, plot.axis.log)
    top = TOP - 8
    foot = top + len(bars) * (_BAR + _GAP)
    foot += sum(_APART + (_HEAD if group.label else 0) for group in plot.groups)

    add(root, "text", plot.axis.heading, x=0, y=11, class_="axis")
    for tick, text in zip(ticks, tick_texts(plot.axis, ticks), strict=True):
        line = add(root, "line", x1=x(tick), x2=x(tick), y1=top, y2=foot)
        line.set("class", "zero" if tick == 0 else "grid")
        line.attrib.update({"data-axis": "x", "data-value": repr(tick)})
        anchor = "start" if x(tick) < 8 else "middle"
        add(root, "text", text, x=x(tick), y=foot + 13, class_="tick", text_anchor=anchor)
    if plot.baseline is not None:
        base = x(plot.baseline)
        add(root, "line", x1=base, x2=base, y1=top, y2=foot, class_="expected")
    for group in plot.groups:
        if group.label:
            add(root, "text", group.label, x=4, y=top + 14, class_="group")
            top += _HEAD
        for name, bar in group.bars.items():
            data = {"data-group": group.label, "data-series": name}
            _bar(root, plot.axis, bar, data, x, top, slots[name])
            top += _BAR + _GAP
        top += _APART
    return foot + _FOOT


def _bar(
    root: Element, axis: Axis, bar: Bar, data: Mapping[str, str], x: Scale, top: float, slot: int
) -> None:
    name, text = data["data-series"], _text(axis, bar)
    zero = end = x.start if axis.log else x(0)
    if bar.value is not None and axis.log:
        end = x(bar.value)
        middle = top + _BAR / 2
        add(root, "line", x1=zero, x2=end, y1=middle, y2=middle, class_=f"stem {colour(slot)}")
        dot = marker(root, end, middle, slot)
        dot.attrib.update({**data, "data-x": repr(bar.value)})
        add(dot, "title", f"{name}: {text}")
        end += 4
    elif bar.value is not None:
        at = x(bar.value)
        rect = add(root, "rect", x=min(zero, at), y=top, width=abs(at - zero), height=_BAR, rx=1.5)
        rect.set("class", f"{'bar open' if bar.at_least else 'bar'} {colour(slot)}")
        rect.attrib.update({**data, "data-x": repr(bar.value)})
        add(rect, "title", f"{name}: {text}")
        end = max(end, at)
    if bar.expected is not None:
        at = x(bar.expected)
        line = add(root, "line", x1=at, x2=at, y1=top - 2, y2=top + _BAR + 2, class_="target")
        add(line, "title", f"{name}, expected: {axis.text(bar.expected)}")
        end = max(end, at)
    # The name stands at the bar, so that nobody has to tell it by the colour.
    label = add(root, "text", f"{text} ", x=px(end + 4), y=top + 9.2, class_="value")
    add(label, "tspan", name)


def _text(axis: Axis, bar: Bar) -> str:
    if bar.value is None:
        return "not known"
    return f"\u2265 {axis.text(bar.value)}" if bar.at_least else axis.text(bar.value)
