"""Plots as inline SVG: no script, no font, colours only by the classes of ``page.css``.

Every mark carries its numbers as ``data-`` attributes and a ``<title>`` that browsers show when
the pointer rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cosim.report.bars import draw_bars
from cosim.report.lines import draw_lines
from cosim.report.plot import Lines, Plot
from cosim.report.svg import add, px


def svg(plot: Plot, width: int, slots: Mapping[str, int], name: str, about: str) -> str:
    """``plot`` as an ``<svg>`` element of ``width`` (WIDE or NARROW).

    ``slots`` are the colours (:func:`cosim.report.plot.slots`), ``name`` begins the ids in it and
    is unique on the page, ``about`` is read out where the plot cannot be seen.
    """
    root = Element("svg", {"role": "img", "aria-labelledby": f"{name}-t {name}-d"})
    add(root, "title", plot.title or about, id=f"{name}-t")
    add(root, "desc", about, id=f"{name}-d")
    if isinstance(plot, Lines):
        height = draw_lines(root, plot, width, slots)
    else:
        height = draw_bars(root, plot, width, slots)
    root.set("viewBox", f"0 0 {width} {px(height)}")
    return ElementTree.tostring(root, encoding="unicode")
