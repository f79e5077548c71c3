"""The page: one HTML file with everything in it, for the screen, dark or light, and for paper.

Nothing on it is fetched or run: plots are inline SVG, colours come from the style sheet inside,
and a content security policy forbids the rest.  Behind each section its data stand as JSON in a
``<script type="application/json">``, for people's own plots and for the tests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cosim.report import scale, tables
from cosim.report.draw import svg
from cosim.report.plot import Bars, Lines, Plot, hidden, slots
from cosim.report.svg import NARROW, WIDE, expected_swatch, swatch
from cosim.report.tables import Table


@dataclass(frozen=True)
class Figure:
    """Plots side by side with one legend, and below them their numbers and further tables."""

    caption: str
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Section:
    """A chapter of the page; ``texts`` are pairs of a label and of what stands below it."""

    slug: str
    """Its id on the page."""
    heading: str
    texts: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    data: Any = None
    """What the section was made from, as JSON."""


@dataclass(frozen=True)
class Page:
    """The whole; ``warnings`` stand first and stand out."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    """Of the page as a whole, before the sections."""


def render(page: Page) -> str:
    """``page`` as HTML."""
    loader = PackageLoader("cosim.report", package_path="")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["paragraphs"] = lambda text: re.split(r"\n\s*\n", text.strip())
    environment.filters["data"] = _json
    environment.filters["prose"] = _prose
    environment.globals["tables_of"] = tables_of
    environment.globals["legend"] = _legend
    environment.globals["has_room_beside"] = _has_room_beside
    environment.globals["drawings"] = _drawings
    environment.globals["notes_on"] = _notes_on
    style = Markup(loader.get_source(environment, "page.css")[0])
    return environment.get_template("page.html.j2").render(page=page, style=style)


def tables_of(figure: Figure) -> list[Table]:
    """The tables below ``figure``: the numbers of its plots, then its further ones."""
    return [*(tables.of_plot(plot) for plot in figure.plots), *figure.tables]


def _names(figure: Figure) -> dict[str, int]:
    # Curves have one legend for all plots, bars have their names beside them.
    curves = [name for plot in figure.plots if isinstance(plot, Lines) for name in plot.names]
    return slots(curves, *(plot.names for plot in figure.plots if isinstance(plot, Bars)))


def _legend(figure: Figure) -> list[tuple[Markup, str]]:
    """Signs and names of the curves, and of what is expected; bars have their names beside them."""
    curves = [one for plot in figure.plots if isinstance(plot, Lines) for one in plot.series]
    drawn = {one.name for one in curves}
    names = ((name, slot) for name, slot in _names(figure).items() if name in drawn)
    entries = [(Markup(swatch(slot)), name) for name, slot in names]
    if len(entries) == 1:
        entries = []
    if any(one.expected for one in curves):
        entries.append((Markup(expected_swatch(line=True)), "expected"))
    bars = [bar for plot in figure.plots if isinstance(plot, Bars) for bar in plot.bars]
    if any(bar.expected is not None for bar in bars):
        entries.append((Markup(expected_swatch(line=False)), "expected"))
    return entries


def _has_room_beside(figure: Figure) -> bool:
    """Whether the figure is one narrow plot, so that its numbers can stand beside it."""
    return len(figure.plots) == 1 and isinstance(figure.plots[0], Bars)


def _drawings(figure: Figure, name: str) -> list[tuple[str, str, Markup]]:
    """Each plot as (class, title, drawing); one alone is drawn for wide and for narrow columns."""
    colours = _names(figure)
    made = []
    alone = len(figure.plots) == 1 and isinstance(figure.plots[0], Lines)
    widths = {"wide": WIDE, "narrow": NARROW} if alone else {"small": NARROW}
    for index, plot in enumerate(figure.plots):
        about = f"{figure.caption}: the numbers are in the table below."
        for kind, width in widths.items():
            drawing = svg(plot, width, colours, f"{name}-{index}-{kind}", about)
            made.append((kind, plot.title, Markup(drawing)))
    return made


def _notes_on(figure: Figure) -> list[str]:
    """What the eye cannot see: curves on top of each other."""
    notes = []
    for plot in figure.plots:
        for names, apart in hidden(plot):
            where = f"{plot.title}: " if plot.title else ""
            how = f"at most {scale.number(apart)} apart" if apart else "equal"
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            notes.append(f"{where}{listed} are {how} at every point, one curve on the other.")
    return notes


def _prose(text: str) -> Markup:
    """``text`` with what stands between backticks as code."""
    parts = text.split("`")
    # What is code stays as it is.
    parts[::2] = map(scale.unbroken, parts[::2])
    if len(parts) % 2 == 0:
        return escape(scale.unbroken(text))
    marked = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
    return Markup("").join(marked)


def _json(data: Any) -> Markup:
    # "<" could end the script element or begin a comment in it.
    return Markup(json.dumps(data).replace("<", "\\u003c"))
