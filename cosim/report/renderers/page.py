"""The page: one HTML file with everything in it, for the screen, dark or light, and for paper.

The page fetches nothing and runs nothing.  Plots are inline SVG, colours come from the style sheet
inside, and a content security policy forbids the rest.  Behind each section its data stand as JSON
in a ``<script type="application/json">``, for people's own plots and for the tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cosim.output import safe
from cosim.report import number_text, plot_tables
from cosim.report.content import Bars, Cell, HeatMap, Lines, Part, PlotGroup, Report, Table
from cosim.report.renderers import flame, plots
from cosim.report.renderers.plots import NARROW, WIDE
from cosim.report.series_looks import Look, looks, palette, policy_label

SUFFIXES = (".html", ".htm")

_COLUMNS = 10
"""A table with more columns becomes several, so that it fits on paper."""


def render(report: Report) -> str:
    """Return ``report`` as HTML."""
    loader = PackageLoader("cosim.report.renderers", package_path="")
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
    environment.filters["runs"] = _runs
    environment.filters["parted"] = _parted
    environment.globals["tables_of"] = plot_tables.of_figure
    environment.globals["notes_on"] = plot_tables.hidden_curves
    environment.globals["legend"] = _legend
    environment.globals["refuse"] = _refuse
    environment.globals["has_room_beside"] = _has_room_beside
    environment.globals["shade"] = _shade
    environment.globals["drawings"] = _drawings
    environment.globals["flame"] = lambda graph, name: Markup(flame.svg(graph, name))
    style = Markup(_colours() + loader.get_source(environment, "page.css")[0])
    page = environment.get_template("page.html.j2").render(page=report, style=style)
    # Names of files may have bytes that are no UTF-8.  The data is ASCII already.
    return safe(page)


def _colours() -> str:
    """Return the part of the style sheet that comes from the policies."""
    light, dark = (
        " ".join(
            f".c{place} {{ --c: {colour[scheme]}; }}" for place, colour in enumerate(palette())
        )
        for scheme in (0, 1)
    )
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}\n"


def _runs(parts: Sequence[Part]) -> Iterator[tuple[str, list[Part]]]:
    """Group neighbours of one kind: tables, for example, can stand side by side."""
    for kind, same in groupby(parts, key=lambda part: type(part).__name__):
        yield kind, list(same)


def _refuse(kind: str) -> None:
    raise TypeError(f"the page cannot show {kind}")


def _shade(heat: HeatMap | None, cell: Cell) -> Markup:
    """Return the attributes of a table's field that is shaded by the size of its number."""
    share = None if heat is None else heat.share(cell)
    if share is None:
        return Markup("")
    return Markup(' class="heat" style="--share: {:.3f}"').format(share)


def _parted(table: Table) -> list[Table]:
    """Return ``table`` in parts that are narrow enough for paper."""
    columns = list(range(1, len(table.columns)))
    starts = range(0, max(len(columns), 1), _COLUMNS)
    return [table.narrowed(columns[start : start + _COLUMNS]) for start in starts]


def _looks(figure: PlotGroup) -> dict[str, Look]:
    # Curves share a legend, so that a name looks the same on all of them.
    curves = [name for plot in figure.plots if isinstance(plot, Lines) for name in plot.names]
    return looks(curves, *(plot.names for plot in figure.plots if isinstance(plot, Bars)))


def _legend(figure: PlotGroup, place: str) -> list[tuple[Markup, str, str]]:
    """Return sign, name and explanation of the curves, and of what is expected.

    Bars have their names beside them.
    """
    curves = [one for plot in figure.plots if isinstance(plot, Lines) for one in plot.series]
    drawn = {one.name for one in curves}
    shown = {name: look for name, look in _looks(figure).items() if name in drawn}
    entries = [
        (Markup(plots.swatch(look, f"{place}-s{number}")), name, policy_label(name) or "")
        for number, (name, look) in enumerate(shown.items())
        if len(shown) > 1
    ]
    if any(one.expected for one in curves):
        entries.append((Markup(plots.EXPECTED_CURVE), "expected", "what theory says"))
    bars = [bar for plot in figure.plots if isinstance(plot, Bars) for bar in plot.bars]
    if any(bar.expected is not None for bar in bars):
        entries.append((Markup(plots.EXPECTED_BAR), "expected", "what theory says"))
    return entries


def _has_room_beside(figure: PlotGroup) -> bool:
    """Return True if the figure is one narrow plot, so that its numbers can stand beside it."""
    return len(figure.plots) == 1 and isinstance(figure.plots[0], Bars)


def _drawings(figure: PlotGroup, name: str) -> list[tuple[str, str, Markup]]:
    """Return each plot as (class, title, drawing).

    A line plot that stands alone is drawn twice, for wide and for narrow columns.
    """
    colours = _looks(figure)
    made = []
    alone = len(figure.plots) == 1 and isinstance(figure.plots[0], Lines)
    widths = {"wide": WIDE, "narrow": NARROW} if alone else {"small": NARROW}
    for index, plot in enumerate(figure.plots):
        about = f"{figure.caption}: the numbers are in the table below."
        for kind, width in widths.items():
            drawing = plots.svg(plot, width, colours, f"{name}-{index}-{kind}", about)
            made.append((kind, plot.title, Markup(drawing)))
    return made


def _prose(text: str) -> Markup:
    """Return ``text`` with what stands between backticks as code."""
    parts = text.split("`")
    # Code stays as it is.
    parts[::2] = map(number_text.unbroken, parts[::2])
    if len(parts) % 2 == 0:
        return escape(number_text.unbroken(text))
    marked = (
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
    return Markup("").join(marked)


def _json(data: Any) -> Markup:
    # "<" could end the script element or begin a comment in it.
    return Markup(json.dumps(data).replace("<", "\\u003c"))
