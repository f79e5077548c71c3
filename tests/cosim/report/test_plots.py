"""Scales, colours and drawings: every mark where its numbers say, nothing else drawn."""

from __future__ import annotations

import math
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosim.report
from cosim.report import scale, tables
from cosim.report.draw import svg
from cosim.report.plot import (
    COLOURS,
    POLICIES,
    Axis,
    Bar,
    Bars,
    Group,
    Lines,
    Plot,
    Series,
    hidden,
    slots,
)
from cosim.report.svg import NARROW, WIDE

counts = st.integers(0, 2**53) | st.floats(0, 2**53)


def draw(plot: Plot, width: int = WIDE) -> Element:
    return ElementTree.fromstring(svg(plot, width, slots(plot.names), "p", "about it"))


def line_plot(*series: Series, log: bool = False) -> Lines:
    return Lines("", Axis("x", log=log), Axis("y"), series)


def translation(mark: Element) -> tuple[float, float]:
    found = re.fullmatch(r"translate\((.+),(.+)\)", mark.attrib["transform"])
    assert found
    return float(found[1]), float(found[2])


def positions(root: Element, axis: str) -> dict[float, float]:
    """Where the ticks of an axis are, by value."""
    return {
        float(line.attrib["data-value"]): float(line.attrib[f"{axis}1"])
        for line in root.iter("line")
        if line.get("data-axis") == axis
    }


def between(ticks: dict[float, float], value: float, log: bool = False) -> float:
    """Where ``value`` must be, from the first and the last tick."""
    change = math.log if log else float
    low, high = min(ticks), max(ticks)
    share = (change(value) - change(low)) / (change(high) - change(low))
    return ticks[low] + share * (ticks[high] - ticks[low])


@given(st.lists(counts, min_size=1, max_size=20), st.integers(2, 10))
def test_ticks_are_round_even_and_around_the_values(values: list[float], about: int) -> None:
    ticks = scale.ticks(values, about)
    assert 2 <= len(ticks) <= about + 3
    steps = [b - a for a, b in pairwise(ticks)]
    # A billionth of a step is no pixel.
    hair = 2e-9 * steps[0]
    assert ticks[0] <= min(values) + hair and ticks[-1] >= max(values) - hair
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    digits = f"{steps[0]:.5e}".split("e")[0]
    assert float(digits) in (1, 2, 5)
    if all(value == int(value) for value in values):
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("text", "value", "read"),
    [
        (scale.number, 200_000, "200,000"),
        (scale.number, 14.8237, "14.82"),
        (scale.number, 14.998, "15.00"),
        (scale.number, 1153.29, "1,153"),
        (scale.number, 0.1, "0.1"),
        (scale.number, 123456.7, "123,457"),
        (scale.number, 0, "0"),
        (scale.percent, 0.5, "50\u00a0%"),
        (scale.percent, 0.72549, "72.5\u00a0%"),
        (scale.percent, 0.000321, "0.032\u00a0%"),
        (scale.ratio, 1, "1.00"),
        (scale.ratio, 0.0432, "0.043"),
        (scale.ratio, 0.0000692, "0.000069"),
        (scale.ratio, 0, "0"),
    ],
)
def test_numbers_read_well(text: object, value: float, read: str) -> None:
    assert callable(text)
    assert text(value) == read


def test_ticks_of_one_axis_share_their_unit() -> None:
    assert [scale.short(v, 20_000) for v in (0, 5000, 20_000)] == ["0", "5k", "20k"]
    assert [scale.short(v, 2e6) for v in (0, 5e5, 2e6)] == ["0", "0.5M", "2M"]
    assert [scale.short(v, 8000) for v in (0, 2000, 8000)] == ["0", "2,000", "8,000"]
    assert [scale.short(v, 1.5) for v in (0, 0.5, 1.5)] == ["0", "0.5", "1.5"]


points = st.dictionaries(st.integers(0, 1000), counts | st.none(), min_size=1, max_size=12).map(
    lambda values: tuple(sorted(values.items()))
)


@given(st.lists(points, min_size=1, max_size=4), st.sampled_from([WIDE, NARROW]))
def test_every_known_point_has_one_marker_in_its_place(
    curves: list[tuple[tuple[float, float | None], ...]], width: int
) -> None:
    plot = line_plot(*(Series(f"s{n}", curve) for n, curve in enumerate(curves)))
    root = draw(plot, width)
    marks = [mark for mark in root.iter("path") if "data-x" in mark.attrib]
    known = {(s.name, x, y) for s in plot.series for x, y in s.points if y is not None}
    found = {(m.attrib["data-series"], *map(float, _numbers(m))) for m in marks}
    assert found == known and len(marks) == len(known)
    x_ticks, y_ticks = positions(root, "x"), positions(root, "y")
    for mark in marks:
        x, y = translation(mark)
        wanted_x, wanted_y = map(float, _numbers(mark))
        assert x == pytest.approx(between(x_ticks, wanted_x), abs=0.02)
        assert y == pytest.approx(between(y_ticks, wanted_y), abs=0.02)
    # Each unknown point parts its curve.
    for series in plot.series:
        curve = [p for p in root.iter("path") if p.get("class") == f"curve {_class(plot, series)}"]
        runs = "".join("x" if y is not None else " " for _, y in series.points).split()
        assert curve[0].attrib["d"].count("M") == len(runs)


@pytest.mark.parametrize("largest", [1, 15, 8000, 20_000, 3_500_000])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_tick_says_its_value(largest: float, width: int) -> None:
    units = {"": 1.0, "k": 1e3, "M": 1e6}
    series = Series("lsp", ((0, 0), (largest, largest)))
    bars = Bars("", Axis("n"), (Group("a", {"lsp": Bar(largest)}),))
    for plot in (line_plot(series), bars):
        elements = list(draw(plot, width))
        ticks = [n for n, element in enumerate(elements) if "data-axis" in element.attrib]
        assert len(ticks) >= 2
        for number in ticks:
            line, text = elements[number], elements[number + 1]
            found = re.fullmatch(r"([\d.,]+)([kM]?)", text.text or "")
            assert text.get("class") == "tick" and found
            value = float(found[1].replace(",", "")) * units[found[2]]
            assert value == pytest.approx(float(line.attrib["data-value"]))
            axis = line.attrib["data-axis"]
            away = float(text.attrib[axis]) - float(line.attrib[f"{axis}1"])
            assert abs(away) < (0.01 if axis == "x" else 5)


def test_powers_of_two_are_evenly_apart() -> None:
    assert scale.is_geometric([1, 2, 4, 8, 16])
    assert not scale.is_geometric([0, 2, 4, 8]) and not scale.is_geometric([1, 2, 3])
    curve = tuple((float(2**n), 5.0 * n) for n in range(5))
    root = draw(line_plot(Series("lsp", curve), log=True), NARROW)
    ticks = positions(root, "x")
    assert list(ticks) == [1, 2, 4, 8, 16]
    steps = [b - a for a, b in pairwise(ticks.values())]
    assert max(steps) - min(steps) < 0.02
    for mark in root.iter("path"):
        if "data-x" in mark.attrib:
            value = float(mark.attrib["data-x"])
            assert translation(mark)[0] == pytest.approx(between(ticks, value, log=True), abs=0.02)


@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=9), st.integers(3, 9))
def test_logarithmic_ticks_are_round_and_around_the_values(values: list[float], about: int) -> None:
    (low, high), ticks = scale.log_ticks(values, about)
    assert low <= min(values) and max(values) <= high and low < high
    assert low * 5 > min(values) / 1.001 and high / 5 < max(values) * 1.001
    for value in (low, high, *ticks):
        assert float(f"{value:e}".split("e")[0]) in (1, 2, 5)
    if scale.is_wide(values):
        assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)


def test_what_is_wide() -> None:
    assert scale.is_wide([14, 118_921]) and not scale.is_wide([10_000, 110_000])
    # Nothing has a place for 0 on a logarithmic scale.
    assert not scale.is_wide([0, 14, 118_921]) and not scale.is_wide([])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_points_on_a_logarithmic_scale(width: int) -> None:
    curve = tuple(zip(range(6), (625.0, 1250.0, None, 10_000.0, 20_000.0, 110_000.0), strict=True))
    root = draw(Lines("", Axis("x"), Axis("exits", log=True), (Series("lsp", curve),)), width)
    ticks = positions(root, "y")
    assert list(ticks) == [1000, 10_000, 100_000]
    marks = [mark for mark in root.iter("path") if "data-y" in mark.attrib]
    assert len(marks) == 5
    for mark in marks:
        wanted = between(ticks, float(mark.attrib["data-y"]), log=True)
        assert translation(mark)[1] == pytest.approx(wanted, abs=0.02)
    texts = [text.text for text in root.iter("text")]
    assert "exits (logarithmic scale)" in texts
    assert {"1,000", "10k", "100k"} <= set(texts)


def test_bars_far_apart_are_dots_that_can_be_read() -> None:
    values = {"shadow": Bar(14.05), "lsp": Bar(118_921), "ssp": Bar(None)}
    plot = Bars("", Axis("cycles", log=True), (Group("mcf-like", values),))
    root = draw(plot, NARROW)
    ticks = positions(root, "x")
    assert list(ticks) == [10, 100, 1000, 10_000, 100_000]
    assert not list(root.iter("rect"))
    dots = [path for path in root.iter("path") if "data-x" in path.attrib]
    assert [dot.attrib["data-series"] for dot in dots] == ["shadow", "lsp"]
    for dot in dots:
        wanted = between(ticks, float(dot.attrib["data-x"]), log=True)
        assert translation(dot)[0] == pytest.approx(wanted, abs=0.02)
    texts = ["".join(t.itertext()) for t in root.iter("text") if t.get("class") == "value"]
    assert texts == ["14.05 shadow", "118,921 lsp", "not known ssp"]


def test_curves_that_only_a_linear_scale_merges_are_not_called_one() -> None:
    low, high = ((0.0, 600.0), (1.0, 700.0)), ((0.0, 700.0), (1.0, 900.0))
    far = Series("vtlb", ((0.0, 300_000.0), (1.0, 300_000.0)))
    series = (Series("lsp", low), Series("ssp", high), far)
    assert hidden(Lines("", Axis("x"), Axis("y"), series)) == [(("lsp", "ssp"), 200)]
    assert hidden(Lines("", Axis("x"), Axis("y", log=True), series)) == []


def test_what_is_expected_is_dashed_and_unmarked() -> None:
    measured = Series("lsp", ((0, 0), (1, 90)))
    plot = line_plot(measured, Series("lsp", ((0, 0), (1, 100)), expected=True))
    root = draw(plot)
    expected = [path for path in root.iter("path") if path.get("class") == "expected"]
    assert [path.get("data-series") for path in expected] == ["lsp, expected"]
    assert len([m for m in root.iter("path") if "data-x" in m.attrib]) == 2
    ticks = positions(root, "y")
    end = float(expected[0].attrib["d"].rpartition(",")[2])
    assert end == pytest.approx(between(ticks, 100), abs=0.02)


def test_names_at_the_ends_of_curves_stand_apart_and_in_the_plot() -> None:
    plot = line_plot(*(Series(name, ((0, 0), (1, 7))) for name in POLICIES))
    root = draw(plot)
    places = [float(t.attrib["y"]) for t in root.iter("text") if t.get("class") == "name"]
    assert len(places) == len(POLICIES)
    assert min(b - a for a, b in pairwise(sorted(places))) > 12
    height = float(root.attrib["viewBox"].split()[3])
    assert min(places) > 0 and max(places) < height


def test_bars_are_as_long_as_their_numbers() -> None:
    bars = {"nested": Bar(15, expected=15), "lsp": Bar(3), "ssp": Bar(None), "oos": Bar(0)}
    plot = Bars("", Axis("refs"), (Group("a", bars), Group("b", {"lsp": Bar(4, at_least=True)})), 5)
    root = draw(plot, NARROW)
    ticks = positions(root, "x")
    rects = list(root.iter("rect"))
    assert [(r.attrib["data-group"], r.attrib["data-series"]) for r in rects] == [
        ("a", "nested"),
        ("a", "lsp"),
        ("a", "oos"),
        ("b", "lsp"),
    ]
    for rect in rects:
        value = float(rect.attrib["data-x"])
        start, length = float(rect.attrib["x"]), float(rect.attrib["width"])
        assert start == pytest.approx(ticks[0], abs=0.02)
        assert start + length == pytest.approx(between(ticks, value), abs=0.03)
    texts = ["".join(t.itertext()) for t in root.iter("text") if t.get("class") == "value"]
    assert texts == ["15 nested", "3 lsp", "not known ssp", "0 oos", "\u2265 4 lsp"]
    for kind, value in (("expected", 5), ("target", 15)):
        drawn = [float(x.attrib["x1"]) for x in root.iter("line") if x.get("class") == kind]
        assert drawn == pytest.approx([between(ticks, value)], abs=0.02)


def test_a_plot_can_be_read_out() -> None:
    root = draw(line_plot(Series("lsp", ((0, 1), (1, 2)))))
    ids = {element.get("id"): element.text for element in root}
    assert root.get("role") == "img"
    assert [ids[name] for name in root.attrib["aria-labelledby"].split()] == ["about it"] * 2
    titles = [title.text for mark in root.iter("path") for title in mark.iter("title")]
    assert titles == ["lsp, x 0: 1", "lsp, x 1: 2"]


def test_a_policy_keeps_its_colour() -> None:
    assert slots(["lsp", "shadow"]) == {"lsp": 3, "shadow": 2}
    assert slots(["shadow:roots=4", "lsp"])["shadow:roots=4"] == 2
    two = slots(["shadow:roots=4", "shadow", "shadow:roots=1"])
    assert two["shadow"] == 2 and len(set(two.values())) == 3


def test_a_name_keeps_its_colour_on_all_plots() -> None:
    kinds = ["pt_write", "fence", "fill"]
    given_ = slots(["lsp", "shadow"], kinds, ["fence", "fast", "fault"], ["on", "off"])
    for names in (kinds, ["fence", "fast", "fault", "lsp", "shadow"], ["on", "off", "lsp"]):
        assert len({given_[name] for name in names}) == len(names)
    assert max(given_.values()) < COLOURS


@given(st.lists(st.sampled_from([*POLICIES, "lsp:a=1", "x", "y", "z", "u", "v"]), max_size=14))
def test_no_two_series_look_alike(names: list[str]) -> None:
    given_ = slots(names)
    assert set(given_) == set(names)
    assert len(set(given_.values())) == len(set(names))
    assert max(given_.values(), default=0) < 2 * COLOURS


def test_curves_that_hide_each_other_are_named() -> None:
    same = ((0.0, 1.0), (1.0, 2000.0))
    near = ((0.0, 6.0), (1.0, 1996.0))
    gap = ((0.0, None), (1.0, 2000.0))
    plot = line_plot(
        Series("lsp", same),
        Series("shadow", ((0, 1), (1, 1970))),
        Series("oos", gap),
        Series("ssp", same),
        Series("vtlb", near),
        Series("lsp", same, expected=True),
        Series("unsync", gap),
    )
    assert hidden(plot) == [(("lsp", "ssp", "vtlb"), 5), (("oos", "unsync"), 0)]


def test_a_table_has_the_numbers_of_its_plot() -> None:
    plot = Lines(
        "t",
        Axis("share", scale.percent),
        Axis("exits"),
        (Series("lsp", ((0.0, 1200), (0.5, None))), Series("lsp", ((0.0, 1000),), expected=True)),
    )
    table = tables.of_plot(plot)
    assert table.columns == ("share", "lsp", "lsp, expected")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["0\u00a0%", "1,200", "1,000"],
        ["50\u00a0%", "-", "-"],
    ]
    bars = Bars("", Axis("n"), (Group("a", {"x": Bar(4, at_least=True)}), Group("b", {})))
    rows = tables.of_plot(bars).rows
    assert [[cell.text for cell in row] for row in rows] == [["a", "\u2265 4"], ["b", ""]]


# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
_BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
}


def _palettes() -> list[tuple[str, list[str]]]:
    style = (Path(cosim.report.__file__).parent / "page.css").read_text()
    papers = re.findall(r"--paper: (#\w{6})", style)
    colours = re.findall(r"--c(\d): (#\w{6})", style)
    assert len(papers) == 2 and len(colours) == 2 * COLOURS
    light, dark = colours[:COLOURS], colours[COLOURS:]
    assert [n for n, _ in light] == [n for n, _ in dark] == [str(n) for n in range(COLOURS)]
    return [(papers[0], [c for _, c in light]), (papers[1], [c for _, c in dark])]


def _linear(colour: str) -> tuple[float, ...]:
    values = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)


def _luminance(colour: str) -> float:
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), _linear(colour), strict=True))


def _oklab(rgb: tuple[float, ...]) -> tuple[float, ...]:
    def times(matrix: tuple[tuple[float, ...], ...], vector: tuple[float, ...]) -> list[float]:
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    to_cones = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    to_lab = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    cones = tuple(max(v, 0) ** (1 / 3) for v in times(to_cones, rgb))
    return tuple(times(to_lab, cones))


def test_colours_stand_out_from_the_paper() -> None:
    for paper, colours in _palettes():
        for colour in colours:
            dark, light = sorted((_luminance(paper), _luminance(colour)))
            assert (light + 0.05) / (dark + 0.05) >= 3, colour


@pytest.mark.parametrize("kind", _BLINDNESS)
def test_colours_differ_to_colour_blind_eyes(kind: str) -> None:
    for _, colours in _palettes():
        seen = []
        for colour in colours:
            rgb = _linear(colour)
            rows = _BLINDNESS[kind]
            mixed = (sum(a * b for a, b in zip(row, rgb, strict=True)) for row in rows)
            seen.append(_oklab(tuple(min(max(v, 0), 1) for v in mixed)))
        for (i, one), (j, other) in combinations(enumerate(seen), 2):
            # 0.02 is a just noticeable difference; the four main policies are far apart.
            wanted = 0.14 if j < 4 else 0.08
            assert math.dist(one, other) >= wanted, (POLICIES[i], POLICIES[j])


def _numbers(mark: Element) -> tuple[str, str]:
    return mark.attrib["data-x"], mark.attrib["data-y"]


def _class(plot: Lines, series: Series) -> str:
    return f"c{slots(plot.names)[series.name]}"
