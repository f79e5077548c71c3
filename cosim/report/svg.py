"""The parts that plots are made of: SVG elements, markers, swatches, lengths of text."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from cosim.report import scale
from cosim.report.plot import COLOURS, Axis

WIDE, NARROW = 720, 340
"""Widths in CSS pixels: of a plot with the column to itself; of one on a phone or among others."""

EM = 11.0
"""Size of the small text in a plot, as in ``page.css``."""
TOP = 26.0
"""Room above a plot for the label of its values."""

_MARKERS = (
    "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0Z",  # disc
    "M-3.2,-3.2H3.2V3.2H-3.2Z",  # square
    "M0,-4.4L4.2,3.2H-4.2Z",  # triangle
    "M0,-4.6L4.6,0L0,4.6L-4.6,0Z",  # diamond
    "M0,4.4L4.2,-3.2H-4.2Z",  # triangle upside down
    "M-1.5,-4.2H1.5V-1.5H4.2V1.5H1.5V4.2H-1.5V1.5H-4.2V-1.5H-1.5Z",  # plus
    "M-5,-2H5V2H-5Z",  # flat bar
    "M-2,-5H2V5H-2Z",  # upright bar
    "M0,-4.6L4.4,-1.4L2.7,3.7H-2.7L-4.4,-1.4Z",  # pentagon
)


def swatch(slot: int) -> str:
    """The sign of a curve for the legend."""
    root = Element("svg", {"class": "swatch", "viewBox": "0 0 24 12", "aria-hidden": "true"})
    add(root, "path", d="M1,6H23", class_=f"curve {colour(slot)}")
    marker(root, 12, 6, slot)
    return ElementTree.tostring(root, encoding="unicode")


def expected_swatch(*, line: bool) -> str:
    """The sign of what is expected, for the legend: of a curve or of a bar."""
    root = Element("svg", {"class": "swatch", "viewBox": "0 0 24 12", "aria-hidden": "true"})
    if line:
        add(root, "path", d="M1,6H23", class_="expected")
    else:
        add(root, "path", d="M12,-1V13", class_="target")
    return ElementTree.tostring(root, encoding="unicode")


def tick_texts(axis: Axis, ticks: Sequence[float]) -> list[str]:
    """The values at the ticks: shares in per cent, all others in short."""
    if axis.text is scale.percent:
        return [axis.text(tick) for tick in ticks]
    if axis.log:
        return [scale.short(tick, tick) for tick in ticks]
    return [scale.short(tick, max(map(abs, ticks))) for tick in ticks]


def marker(root: Element, x: float, y: float, slot: int) -> Element:
    """The marker of series ``slot`` at a point."""
    kind = "mark" if slot < COLOURS else "mark hollow"
    return add(
        root,
        "path",
        d=_MARKERS[slot % len(_MARKERS)],
        transform=f"translate({px(x)},{px(y)})",
        class_=f"{kind} {colour(slot)}",
    )


def colour(slot: int) -> str:
    """The class of the colour of series ``slot``."""
    return f"c{slot % COLOURS}"


def length(text: str) -> float:
    """Pixels that ``text`` takes at most, in the wide sans-serif fonts."""
    return 0.62 * EM * len(text)


def px(value: float) -> str:
    """A length in pixels, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def add(parent: Element, tag: str, text: str | None = None, **attributes: str | float) -> Element:
    """Append ``<tag>``; of ``class_`` and ``text_anchor`` the names are class and text-anchor."""
    child = ElementTree.SubElement(parent, tag)
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        child.set(name, value if isinstance(value, str) else px(value))
    child.text = text
    return child
