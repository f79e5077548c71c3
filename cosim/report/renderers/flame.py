"""Flame graphs as inline SVG: no script, no font; colours come from the style sheet of the page.

The root is at the bottom, and a frame stands on what it is a part of.  Its width is its count.  The
browser shows a frame's ``<title>`` when the pointer rests on it.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from cosim.output import one_line
from cosim.report import number_text
from cosim.report.content import FlameGraph, Frame

WIDTH = 720
"""Width in CSS pixels of the root."""
_ROW = 18.0
"""Height of a frame, with the gap above it."""
_GAP = 1.0
_PAD = 4.0
"""From the edge of a frame to its name."""
_LETTER = 6.8
"""Width of a letter at most."""
_FEWEST = 3
"""Letters of a name that are worth showing."""
_NARROWEST = 0.5
"""A frame that is narrower is left out; what it stands on shows its count."""


def svg(graph: FlameGraph, name: str) -> str:
    """Return ``graph`` as an ``<svg>`` element.

    :param name: begins the ids in the element; unique on the page.
    """
    height = _depth(graph.root) * _ROW
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "flame",
            "viewBox": f"0 0 {WIDTH} {height:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title",
        },
    )
    title = SubElement(root, "title", {"id": f"{name}-title"})
    title.text = f"{one_line(graph.caption)}, as a flame graph"
    _draw(root, graph, graph.root, 0.0, height, 0)
    return ElementTree.tostring(root, encoding="unicode")


def _depth(frame: Frame) -> int:
    return 1 + max(map(_depth, frame.parts), default=0)


def _draw(
    root: Element, graph: FlameGraph, frame: Frame, left: float, bottom: float, shade: int
) -> None:
    """Draw ``frame`` from ``left`` on, above ``bottom``, and its parts on it."""
    width = WIDTH * frame.value / max(graph.root.value, 1)
    if width < _NARROWEST:
        return
    label = one_line(frame.label)
    share = number_text.percent(frame.value / max(graph.root.value, 1))
    group = SubElement(root, "g", {"data-label": label, "data-value": str(frame.value)})
    SubElement(group, "title").text = f"{label}: {frame.value:,} {graph.unit} ({share})"
    top = bottom - _ROW
    box = {
        "x": f"{left:.2f}",
        "y": f"{top + _GAP:g}",
        "width": f"{max(width - _GAP, _NARROWEST):.2f}",
        "height": f"{_ROW - _GAP:g}",
        "class": f"shade{shade % 2}",
    }
    SubElement(group, "rect", box)
    letters = int((width - 2 * _PAD) / _LETTER)
    if letters >= min(_FEWEST, len(label)):
        text = SubElement(group, "text", {"x": f"{left + _PAD:.2f}", "y": f"{bottom - 5:g}"})
        text.text = label if len(label) <= letters else f"{label[: letters - 1]}\u2026"
    for number, part in enumerate(frame.parts):
        _draw(root, graph, part, left, top, shade + number + 1)
        left += WIDTH * part.value / max(graph.root.value, 1)
