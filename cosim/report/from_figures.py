"""The figures of ``cosim reproduce`` (:mod:`cosim.report.figure_document`) as a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from cosim.errors import UsageError
from cosim.report import number_text, settings
from cosim.report.content import (
    Axis,
    Bar,
    Bars,
    Cell,
    Group,
    Lines,
    Notes,
    Paragraphs,
    Part,
    Plot,
    PlotGroup,
    Report,
    Section,
    Series,
    Table,
)
from cosim.report.figure_document import ORDER, FigureDocument, Row
from cosim.report.plot_tables import of_plot
from cosim.report.programs import described, label, labelled

Rows = list[Row]

_CLAIMS = ("", "measured", "paper", "departure")
_FENCES = {"va": "fences by address", "all": "global fences"}
_UNITS: dict[object, Callable[[float], str]] = {
    None: number_text.number,
    "share": number_text.percent,
    "ratio": number_text.ratio,
}


def build(documents: list[FigureDocument], title: str) -> Report:
    """Return the report of figures, in the order of the paper.

    :raises UsageError: when two are the same figure, or a row is not as it should be.
    """
    documents = sorted(documents, key=_place)
    for before, after in pairwise(documents):
        if before.figure == after.figure:
            raise UsageError(f"two documents are both figure {after.figure}")
    return Report(
        title=title,
        lead="Measured with lsp-cosim under QEMU. Every section says what was measured, what the "
        "paper states, and where and why the two differ. Counts, not times.",
        sections=tuple(map(_section, documents)),
        warnings=tuple(_warnings(documents)),
        answer=tuple(_claims(documents)),
    )


def _place(document: FigureDocument) -> tuple[int, str]:
    name = document.figure
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def _warnings(documents: list[FigureDocument]) -> Iterator[str]:
    """Say what is wrong with single figures, and with showing them together."""
    for one in documents:
        yield from (f"{one.figure}: {labelled(warning)}" for warning in one.warnings)
    quick = [one.figure for one in documents if one.quick]
    full = [one.figure for one in documents if not one.quick]
    if quick and full:
        yield (
            f"Sizes are mixed: {', '.join(quick)} of a quick run (small sizes), "
            f"{', '.join(full)} of a full one. Do not compare their counts."
        )


def _claims(documents: list[FigureDocument]) -> Iterator[Part]:
    """Give the figures' numbers next to the paper's, if there are any."""
    rows = tuple(
        (
            Cell(number_text.unbroken(f"{labelled(claim)} ({document.figure})")),
            _claimed(measured),
            _claimed(paper),
            Cell(number_text.unbroken(departure)),
        )
        for document in documents
        for claim, measured, paper, departure in document.claims
    )
    if rows:
        yield Table("Measured, next to the paper's numbers", _CLAIMS, rows)


def _claimed(value: str | float | None) -> Cell:
    return Cell(number_text.unbroken(labelled(value))) if isinstance(value, str) else Cell.of(value)


def _section(document: FigureDocument) -> Section:
    parts: list[Part] = [
        Paragraphs(labelled(text), heading, detail=True) for heading, text in document.texts
    ]
    parts += _FIGURES.get(document.figure, _small_multiples)(document)
    if document.settings:
        parts.append(settings.table_with_programs("Settings", document.settings))
    if document.notes:
        parts.append(Notes(tuple(map(labelled, document.notes)), detail=True))
    return Section(document.figure, document.title, tuple(parts), data=document.data)


def _fig5(document: FigureDocument) -> tuple[PlotGroup, ...]:
    figures = []
    for program, rows in _by(document.rows, "program").items():
        for row in rows:
            if not 0 <= row.number("share") <= 1:
                row.refuse("share", "a number from 0 to 1")
        x = Axis("share of modifications", number_text.percent)
        plot = Lines("", x, Axis("VM exits"), _series(rows, "policy", "share", "exits"))
        caption = "VM exits over the share of modifications"
        figures.append(
            PlotGroup(f"{caption}: {labelled(program)}" if program else caption, (plot,))
        )
    return tuple(figures)


def _fig6(document: FigureDocument) -> tuple[PlotGroup, ...]:
    plots: list[Plot] = []
    reads = []
    for fence, rows in _by(document.rows, "fence").items():
        x = _axis("modifications for each fence", rows, "window")
        name = _FENCES.get(fence, fence)
        plots.append(Lines(name, x, Axis("VM exits"), _series(rows, "policy", "window", "exits")))
        known = [row for row in rows if row.maybe("sync_reads") is not None]
        if known:
            what = Axis("entries read to synchronise")
            series = _series(known, "policy", "window", "sync_reads")
            reads.append(of_plot(Lines(name, x, what, series)))
    caption = "VM exits that the global page table causes"
    # Each on its own scale, because larger counts of one would merge the curves of the other.
    return (PlotGroup(caption, tuple(p for plot in plots for p in _alike([plot])), tuple(reads)),)


def _refs(document: FigureDocument) -> tuple[PlotGroup, ...]:
    axis = Axis("memory references for each TLB miss")
    groups = _groups(document.rows, "mode", "policy", "refs_per_miss", "expected")
    return (PlotGroup("Walk references", (Bars("", axis, groups),)),)


def _fig7(document: FigureDocument) -> tuple[PlotGroup, ...]:
    labels = {row.text("program"): _program(row) for row in document.rows}
    plots, counts = [], []
    for count, key, what, baseline in (
        ("tlb_misses", "tlb_misses_vs_nested", "TLB misses", "nested"),
        ("exits", "exits_vs_shadow", "VM exits", "shadow"),
    ):
        groups = _groups(document.rows, "program", "policy", key, labels=labels)
        axis = Axis(f"{what}, {baseline} = 1", number_text.ratio)
        plots.append(Bars("", axis, groups, baseline=1.0))
        counts.append(_count_table(document.rows, count, what, labels))
    return (PlotGroup("Memory-intensive programs", tuple(plots), tuple(counts)),)


def _small_multiples(document: FigureDocument) -> tuple[PlotGroup, ...]:
    """Return a group for neighbouring panels that show the same, so that they share a legend."""
    panels = [_panel(*panel) for panel in _by(document.rows, "panel").items()]
    runs = groupby(panels, key=lambda plot: (type(plot), _values_axis(plot)))
    return tuple(PlotGroup(document.title, _alike(list(plots))) for _, plots in runs)


def _panel(name: str, rows: Rows) -> Plot:
    first, title = rows[0].fields, labelled(name)
    unit = first.get("y_unit")
    if unit not in _UNITS:
        rows[0].refuse("y_unit", "share or ratio")
    y = Axis(str(first.get("y_label", "")), _UNITS[unit])
    if all(isinstance(row.fields.get("x"), str) for row in rows):
        labels = {name: label(name) for name in _by(rows, "x")}
        return Bars(title, y, _groups(rows, "x", "series", "y", labels=labels))
    x = _axis(str(first.get("x_label", "")), rows, "x")
    return Lines(title, x, y, _series(rows, "series", "x", "y"))


def _values_axis(plot: Plot) -> Axis:
    return plot.axis if isinstance(plot, Bars) else plot.y


def _alike(plots: Sequence[Plot]) -> tuple[Plot, ...]:
    """Return ``plots`` of the same values on one scale, logarithmic if counts are far apart."""
    values = tuple(value for plot in plots for value in plot.values)
    made: list[Plot] = []
    for plot in plots:
        axis = _values_axis(plot)
        wide = axis.text is number_text.number and number_text.is_wide(values)
        axis = replace(axis, log=wide, beside=values)
        made.append(replace(plot, axis=axis) if isinstance(plot, Bars) else replace(plot, y=axis))
    return tuple(made)


_FIGURES: dict[str, Callable[[FigureDocument], tuple[PlotGroup, ...]]] = {
    "fig5": _fig5,
    "fig6": _fig6,
    "refs": _refs,
    "fig7": _fig7,
}


def _axis(text: str, rows: Rows, key: str) -> Axis:
    return Axis(text, log=number_text.is_geometric(row.number(key) for row in rows))


def _series(rows: Rows, name: str, x: str, y: str) -> tuple[Series, ...]:
    """Return a measured series for each ``name``, and what is expected if rows say it."""
    made = []
    for policy, own in _by(rows, name).items():
        own = sorted(own, key=lambda row: row.number(x))
        xs = [row.number(x) for row in own]
        for before, row in zip(xs, own[1:], strict=False):
            if row.number(x) == before:
                row.refuse_second(x, policy)
        measured = tuple(zip(xs, (row.maybe(y) for row in own), strict=True))
        made.append(Series(policy, measured))
        expected = tuple(zip(xs, (row.maybe("expected") for row in own), strict=True))
        if any(value is not None for _, value in expected):
            made.append(Series(policy, expected, expected=True))
    return tuple(made)


def _groups(
    rows: Rows,
    group: str,
    name: str,
    value: str,
    expected: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[Group, ...]:
    made = []
    for key, own in _by(rows, group).items():
        bars: dict[str, Bar] = {}
        for row in own:
            series = row.text(name)
            if series in bars:
                row.refuse_second(name, key)
            bars[series] = Bar(row.maybe(value), row.maybe(expected) if expected else None)
        made.append(Group(labels[key] if labels else key, bars))
    return tuple(made)


def _count_table(rows: Rows, key: str, what: str, labels: Mapping[str, str]) -> Table:
    policies = list(_by(rows, "policy"))
    lines = []
    for program, own in _by(rows, "program").items():
        values = {row.text("policy"): row.maybe(key) for row in own}
        cells = (Cell.of(values.get(policy)) for policy in policies)
        lines.append((Cell(labels[program]), *cells))
    return Table(what, ("", *policies), tuple(lines))


def _program(row: Row) -> str:
    other = row.text("stands_for") if row.fields.get("stands_for") is not None else None
    return described(row.text("program"), other, stand_in=bool(row.fields.get("stand_in")))


def _by(rows: Rows, key: str) -> dict[str, Rows]:
    """Return rows by the text in ``key`` ("" if it is missing), in the order of the first rows."""
    parts: dict[str, Rows] = {}
    for row in rows:
        part = row.text(key) if key in row.fields else ""
        parts.setdefault(part, []).append(row)
    return parts
