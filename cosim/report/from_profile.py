"""The part ``profile`` of a result: when policies exit, and what causes exits and TLB misses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cosim.models.attribution import CausesDocument
from cosim.models.profile import OverTime, Profile
from cosim.output import one_line
from cosim.report import number_text
from cosim.report.content import (
    Axis,
    Bar,
    Bars,
    Cell,
    FlameGraph,
    Frame,
    Group,
    Lines,
    Notes,
    Part,
    Place,
    PlotGroup,
    Section,
    Series,
    Table,
)

_POINTS = 32
"""Windows of time on the page at most."""

COUNTS = {"exits": "VM exits", "misses": "TLB misses"}
"""What is counted, by its key in a row."""
GROUPS = {"functions": "function", "sites": "call site", "spaces": "address space"}
"""What causes it, by the key in the document."""
_EVENTS = {"pte_write": "table store", "satp_write": "satp write", "page_fault": "page fault"}

_ALL_OTHERS = "all others"
_OF_ALL = ("over_time", "functions", "processes")
"""Reasons that are about no policy."""
_SMALLEST = 0.0005
_LEAST = number_text.percent(0.001, 1)
"""What is shown for a share below :data:`_SMALLEST`."""


def sections(profile: Profile, exiting: Sequence[str]) -> Iterator[Section]:
    """Yield the sections of a page.

    :param exiting: the policies that can exit.
    """
    reasons = profile["reasons"]
    left_out = [f"{name}: {reasons[name]}" for name in exiting if name in reasons]
    over_time = profile["over_time"]
    parts: list[Part] = []
    if over_time is not None:
        parts += _over_time(over_time, exiting)
    parts += _notes([reasons["over_time"]] if "over_time" in reasons else left_out)
    yield Section("time", "VM exits over the guest's time", tuple(parts), detail=True, drawn=True)
    causes = profile.get("causes")
    if causes is None:
        return
    unnamed = [reasons["functions"]] if "functions" in reasons else []
    parts = [*_by_function(causes, exiting), *_notes(left_out + unnamed)]
    yield Section("functions", "VM exits by function", tuple(parts), detail=True, drawn=True)
    for key, counted in COUNTS.items():
        names = _counting(causes, key)
        graphs = [flame_graph(causes, key, name) for name in names]
        # The section before has the exits by function.
        lists = [table(causes, key, group) for group in [*GROUPS][key == "exits" :]]
        parts = [graph for graph in graphs if graph.root.value]
        parts += [one for one in lists if one is not None]
        if parts:
            parts += _notes([*reasons_of(profile, key), *nameless(profile)])
            heading = f"What causes {counted}"
            yield Section(f"causes-{key}", heading, tuple(parts), detail=True, drawn=True)


def reasons_of(profile: Profile, key: str) -> list[str]:
    """Return why a policy is missing among the counts of ``key``, one line for each."""
    suffix = ".misses" if key == "misses" else ""
    names = [name.removesuffix(suffix) for name in profile["reasons"] if name.endswith(suffix)]
    names = [name for name in names if name not in _OF_ALL]
    names = [name for name in names if suffix or not name.endswith(".misses")]
    return [f"{name}: {profile['reasons'][name + suffix]}" for name in names]


def nameless(profile: Profile) -> list[str]:
    """Return in one line why address spaces are without the names of processes, if they are."""
    reason = profile["reasons"].get("processes")
    return [] if reason is None else [f"address spaces have no names of processes: {reason}"]


def _notes(lines: Sequence[str]) -> list[Part]:
    return [Notes(tuple(lines))] if lines else []


def _over_time(over_time: OverTime, exiting: Sequence[str]) -> Iterator[Part]:
    exits = {name: counts for name, counts in over_time["exits"].items() if name in exiting}
    if not exits:
        return
    length = max(map(len, exits.values()))
    joined = -(-length // _POINTS)
    window = joined * over_time["window"]
    series = tuple(
        Series(
            name,
            tuple(
                (at * window, sum(counts[at * joined : (at + 1) * joined]))
                for at in range(-(-length // joined))
            ),
        )
        for name, counts in exits.items()
    )
    places = tuple(Place(mark["at"], one_line(mark["label"])) for mark in over_time["marks"])
    x = Axis("instructions since the region began")
    y = Axis(f"VM exits in each {window:,} instructions")
    marks: tuple[Table, ...] = ()
    if places:
        rows = tuple((Cell(place.label), Cell.of(place.x)) for place in places)
        marks = (Table("Marks of the guest", ("mark", x.label), rows),)
    yield PlotGroup("", (Lines("", x, y, series, places, step=window),), marks)


def _by_function(causes: CausesDocument, exiting: Sequence[str]) -> Iterator[Part]:
    groups = []
    for row in _ranked(causes, "exits", "functions"):
        bars = {name: Bar(row["exits"][name]) for name in exiting if row["exits"].get(name)}
        if bars:
            label = row["function"]
            groups.append(Group("all other functions" if label is None else one_line(label), bars))
    if groups:
        yield PlotGroup("", (Bars("", Axis("VM exits"), tuple(groups)),))


def table(causes: CausesDocument, key: str, group: str, most: int | None = None) -> Table | None:
    """Return who causes most, with the share of each policy's total; None if nothing was counted.

    :param key: ``exits`` or ``misses``.
    :param group: a key of :data:`GROUPS`.
    :param most: rows at most; the others are added up in the last one.
    """
    rows = _ranked(causes, key, group, most)
    names = [name for name in _counting(causes, key) if any(row[key][name] for row in rows)]
    if not names:
        return None
    totals = {name: sum(row[key][name] for row in rows) for name in names}
    cells = tuple(
        (Cell(label(row, group)), *(_share(row[key][name], totals[name]) for name in names))
        for row in rows
    )
    caption = f"{COUNTS[key]} by {GROUPS[group]}"
    return Table(caption, (GROUPS[group], *names), cells)


def _share(count: int, total: int) -> Cell:
    if not count:
        return Cell("0", 0)
    share = count / total
    text = number_text.percent(share, 1) if share >= _SMALLEST else f"<{_LEAST}"
    return Cell(f"{count:,} ({text})", count)


def label(row: Mapping[str, Any], group: str) -> str:
    """Return what people call the cause in ``row``, which belongs to ``group``."""
    if row[group[:-1]] is None:
        return _ALL_OTHERS
    text = one_line(row[group[:-1]])
    if group == "sites":
        source = f" ({one_line(row['source'])})" if row.get("source") else ""
        return f"{text}{source}, {event_name(row['event'])}"
    if group == "spaces" and row["satp"] and not row["user"]:
        return f"{text}, kernel only"
    return text


def event_name(event: str) -> str:
    """Return what people call a kind of event."""
    return _EVENTS.get(event, event.replace("_", " "))


def _counting(causes: CausesDocument, key: str) -> list[str]:
    """Return the policies that have counts of ``key``."""
    rows: Sequence[Any] = causes["functions"]
    return list(rows[0][key]) if rows else []


def _ranked(
    causes: CausesDocument, key: str, group: str, most: int | None = None
) -> list[dict[str, Any]]:
    """Return the rows that have counts of ``key``, the largest share of a policy's total first.

    The last row has the sum of what is not listed, if there is such.
    """
    rows: Sequence[Any] = causes[group]  # type: ignore[literal-required]
    totals: dict[str, int] = {}
    for row in rows:
        for name, count in row[key].items():
            totals[name] = totals.get(name, 0) + count

    def share(row: Any) -> float:
        return max((n / (totals[name] or 1) for name, n in row[key].items()), default=0)

    named = sorted((row for row in rows if row[group[:-1]] is not None), key=share, reverse=True)
    named = [row for row in named if any(row[key].values())]
    others = [row for row in rows if row[group[:-1]] is None]
    if most is not None:
        others, named = others + named[most:], named[:most]
    rest = {name: sum(row[key].get(name, 0) for row in others) for name in totals}
    if not any(rest.values()):
        return named
    return [*named, {group[:-1]: None, key: rest}]


def flame_graph(causes: CausesDocument, key: str, policy: str) -> FlameGraph:
    """Return one policy's counts: address spaces, in them functions, in them kinds of event.

    :param key: ``exits`` or ``misses``.
    """
    found = []
    for row in causes["stacks"]:
        space, function, event = row["space"], row["function"], row["event"]
        if space is None or function is None or event is None:
            stack: tuple[str, ...] = (_ALL_OTHERS,)
        else:
            stack = (space, function, event_name(event))
        found.append((stack, row[key].get(policy, 0)))  # type: ignore[literal-required]
    parts = _frames(found)
    root = Frame(policy, sum(part.value for part in parts), parts)
    return FlameGraph(f"{COUNTS[key]} of {policy}", COUNTS[key], root)


def _frames(stacks: Iterable[tuple[tuple[str, ...], int]]) -> tuple[Frame, ...]:
    """Return the frames of all stacks that have a count, the widest first."""
    groups: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    values: dict[str, int] = {}
    for (first, *rest), count in stacks:
        if count:
            groups.setdefault(first, []).append((tuple(rest), count))
            values[first] = values.get(first, 0) + count
    order = sorted(groups, key=lambda name: (name == _ALL_OTHERS, -values[name], name))
    return tuple(
        Frame(name, values[name], _frames(one for one in groups[name] if one[0])) for name in order
    )
