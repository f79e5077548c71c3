"""Scales, colours and drawings: every mark where its numbers say, nothing else drawn."""

from __future__ import annotations

import math
import re
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosim.report import number_text, plot_tables, renderers
from cosim.report.content import Axis, Bar, Bars, Group, Lines, Place, Plot, Series
from cosim.report.plot_tables import hidden
from cosim.report.renderers.plots import NARROW, WIDE, svg, swatch
from cosim.report.series_looks import looks, palette, policy_colours, policy_label
from hypervisor_model.policies import POLICIES

counts = st.integers(0, 2**53) | st.floats(0, 2**53)


def draw(plot: Plot, width: int = WIDE) -> Element:
    return ElementTree.fromstring(svg(plot, width, looks(plot.names), "p", "about it"))


def style_sheet() -> str:
    return (Path(renderers.__file__).parent / "page.css").read_text()


def line_plot(*series: Series, log: bool = False) -> Lines:
    return Lines("", Axis("x", log=log), Axis("y"), series)


def place(mark: Element) -> tuple[float, float]:
    """Where an element is, or begins."""
    if mark.tag == "use":
        return float(mark.attrib["x"]), float(mark.attrib["y"])
    found = re.match(r"M(\S+) ([-\d.]+)", mark.attrib["d"])
    assert found
    return float(found[1]), float(found[2])


def of_class(root: Element, kind: str) -> list[Element]:
    """What is drawn of a class."""
    return [element for element in root.iter() if kind in element.get("class", "").split()]


def marks_of(root: Element) -> list[Element]:
    """The marks that carry a point."""
    return [mark for mark in root.iter("use") if "data-x" in mark.attrib]


def positions(root: Element, axis: str) -> dict[float, float]:
    """Where the ticks of an axis are, by value."""
    return {
        float(line.attrib["data-value"]): place(line)["xy".index(axis)]
        for line in root.iter()
        if line.get("data-axis") == axis
    }


def between(ticks: dict[float, float], value: float, log: bool = False) -> float:
    """Where ``value`` must be, from the first and the last tick."""
    change = math.log if log else float
    low, high = min(ticks), max(ticks)
    share = (change(value) - change(low)) / (change(high) - change(low))
    return ticks[low] + share * (ticks[high] - ticks[low])


@settings(max_examples=40)
@given(st.lists(counts, min_size=1, max_size=20))
@example([1e-300])
@example([1e-285])
def test_ticks_are_round_even_and_around_the_values(values: list[float]) -> None:
    root = draw(Bars("", Axis("n"), (Group("", {"lsp": Bar(max(values))}),)))
    ticks = [float(x.attrib["data-value"]) for x in root.iter() if x.get("data-axis") == "x"]
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in pairwise(ticks)]
    # A billionth of a step is no pixel.
    assert ticks[0] == 0 and ticks[-1] >= max(values) - 2e-9 * steps[0]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    digits = f"{steps[0]:.5e}".split("e")[0]
    assert float(digits) in (1, 2, 5)
    if all(value == int(value) for value in values):
        assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("text", "value", "read"),
    [
        (number_text.number, 200_000, "200,000"),
        (number_text.number, 14.8237, "14.82"),
        (number_text.number, 14.998, "15.00"),
        (number_text.number, 1153.29, "1,153"),
        (number_text.number, 0.1, "0.1"),
        (number_text.number, 123456.7, "123,457"),
        (number_text.number, 0, "0"),
        (number_text.percent, 0.5, "50\u00a0%"),
        (number_text.percent, 0.72549, "72.5\u00a0%"),
        (number_text.percent, 0.000321, "0.032\u00a0%"),
        (number_text.ratio, 1, "1.00"),
        (number_text.ratio, 0.0432, "0.043"),
        (number_text.ratio, 0.0000692, "0.000069"),
        (number_text.ratio, 0, "0"),
    ],
)
def test_numbers_read_well(text: object, value: float, read: str) -> None:
    assert callable(text)
    assert text(value) == read


def test_ticks_of_one_axis_share_their_unit() -> None:
    assert [number_text.short(v, 20_000) for v in (0, 5000, 20_000)] == ["0", "5k", "20k"]
    assert [number_text.short(v, 2e6) for v in (0, 5e5, 2e6)] == ["0", "0.5M", "2M"]
    assert [number_text.short(v, 8000) for v in (0, 2000, 8000)] == ["0", "2,000", "8,000"]
    assert [number_text.short(v, 1.5) for v in (0, 0.5, 1.5)] == ["0", "0.5", "1.5"]


points = st.dictionaries(st.integers(0, 1000), counts | st.none(), min_size=1, max_size=12).map(
    lambda values: tuple(sorted(values.items()))
)


@settings(max_examples=40)
@given(st.lists(points, min_size=1, max_size=4), st.sampled_from([WIDE, NARROW]))
def test_every_known_point_has_one_marker_in_its_place(
    curves: list[tuple[tuple[float, float | None], ...]], width: int
) -> None:
    plot = line_plot(*(Series(f"s{n}", curve) for n, curve in enumerate(curves)))
    root = draw(plot, width)
    marks = marks_of(root)
    known = {(s.name, x, y) for s in plot.series for x, y in s.points if y is not None}
    found = {(m.attrib["data-series"], *_numbers(m)) for m in marks}
    assert found == known and len(marks) == len(known)
    x_ticks, y_ticks = positions(root, "x"), positions(root, "y")
    for mark in marks:
        x, y = place(mark)
        wanted_x, wanted_y = _numbers(mark)
        assert x == pytest.approx(between(x_ticks, wanted_x), abs=0.02)
        assert y == pytest.approx(between(y_ticks, wanted_y), abs=0.02)
    # Each unknown point parts its curve.
    drawn = {path.attrib["data-series"]: path.get("d", "") for path in of_class(root, "curve")}
    for series in plot.series:
        runs = "".join("x" if y is not None else " " for _, y in series.points).split()
        assert drawn.get(series.name, "").count("M") == len(runs)


@pytest.mark.parametrize("largest", [1, 15, 8000, 20_000, 3_500_000])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_tick_says_its_value(largest: float, width: int) -> None:
    units = {"": 1.0, "k": 1e3, "M": 1e6}
    series = Series("lsp", ((0, 0), (largest, largest)))
    bars = Bars("", Axis("n"), (Group("a", {"lsp": Bar(largest)}),))
    for plot in (line_plot(series), bars):
        root = draw(plot, width)
        ticks = [element for element in root.iter() if "data-axis" in element.attrib]
        texts = of_class(root, "tick")
        assert len(ticks) == len(texts) >= 2
        # In the axes' groups come the lines, in the order of the texts.
        for line in ticks:
            axis = line.attrib["data-axis"]
            at = place(line)["xy".index(axis)]
            near = [t for t in texts if abs(float(t.attrib[axis]) - at) < (0.01, 5)[axis == "y"]]
            shown = [re.fullmatch(r"([\d.,]+)([kM]?)", text.text or "") for text in near]
            values = [float(f[1].replace(",", "")) * units[f[2]] for f in shown if f]
            assert pytest.approx(float(line.attrib["data-value"])) in values


def test_powers_of_two_are_evenly_apart() -> None:
    assert number_text.is_geometric([1, 2, 4, 8, 16])
    assert not number_text.is_geometric([0, 2, 4, 8]) and not number_text.is_geometric([1, 2, 3])
    curve = tuple((float(2**n), 5.0 * n) for n in range(5))
    root = draw(line_plot(Series("lsp", curve), log=True), NARROW)
    ticks = positions(root, "x")
    assert list(ticks) == [1, 2, 4, 8, 16]
    steps = [b - a for a, b in pairwise(ticks.values())]
    assert max(steps) - min(steps) < 0.02
    assert len(marks_of(root)) == 5
    for mark in marks_of(root):
        wanted = between(ticks, _numbers(mark)[0], log=True)
        assert place(mark)[0] == pytest.approx(wanted, abs=0.02)


@settings(max_examples=40)
@given(st.lists(st.floats(1e-6, 1e12), min_size=1, max_size=9))
def test_logarithmic_ticks_are_round_and_around_the_values(values: list[float]) -> None:
    bars = {f"s{number}": Bar(value) for number, value in enumerate(values)}
    root = draw(Bars("", Axis("n", log=True), (Group("", bars),)))
    ticks = positions(root, "x")
    for value in ticks:
        assert float(f"{value:e}".split("e")[0]) in (1, 2, 5)
    if number_text.is_wide(values):
        assert len(ticks) >= 2
    # All in the axes, which are not much wider than the values.
    stems = [re.findall(r"[ML](\S+)", path.attrib["d"]) for path in of_class(root, "stem")]
    assert len(stems) == len(values)
    left, ends = {float(stem[0]) for stem in stems}, [float(stem[1]) for stem in stems]
    assert len(left) == 1
    if len(ticks) >= 2:
        per_decade = between(ticks, 10, log=True) - between(ticks, 1, log=True)
        (start,) = left
        for end, value in zip(ends, values, strict=True):
            assert end == pytest.approx(between(ticks, value, log=True), abs=0.02)
            assert end >= start - 0.02
        assert min(ends) - start <= per_decade * math.log10(5.01)


def test_a_step_reaches_from_its_point_to_the_next() -> None:
    curve = Series("lsp", ((0, 5.0), (10, None), (20, 7.0), (30, 7.0)))
    marks = (Place(5, "6.0"), Place(6, "done"), Place(6, "off"))
    root = draw(Lines("", Axis("x"), Axis("y"), (curve,), marks, step=10), NARROW)
    ticks = positions(root, "x")
    (path,) = of_class(root, "curve")
    xs = [float(x) for x in re.findall(r"[ML](\S+)", path.attrib["d"])]
    wanted = [between(ticks, value) for value in (0, 10, 20, 30, 40)]
    assert sorted(set(xs)) == pytest.approx(wanted, abs=0.02)
    assert not marks_of(root)
    # A label that looks like a number is none.
    drawn = [(line.attrib["data-label"], line.attrib["data-x"]) for line in of_class(root, "place")]
    assert drawn == [("6.0", "5"), ("done", "6"), ("off", "6")]
    # Labels of places that are close stand below each other.
    named = of_class(root, "place-name")
    assert [text.text for text in named] == ["6.0", "done", "off"]
    assert len({text.attrib["y"] for text in named}) == 3


def test_what_is_wide() -> None:
    assert number_text.is_wide([14, 118_921]) and not number_text.is_wide([10_000, 110_000])
    # Nothing has a place for 0 on a logarithmic number_text.
    assert not number_text.is_wide([0, 14, 118_921]) and not number_text.is_wide([])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_points_on_a_logarithmic_scale(width: int) -> None:
    curve = tuple(zip(range(6), (625.0, 1250.0, None, 10_000.0, 20_000.0, 110_000.0), strict=True))
    root = draw(Lines("", Axis("x"), Axis("exits", log=True), (Series("lsp", curve),)), width)
    ticks = positions(root, "y")
    assert list(ticks) == [1000, 10_000, 100_000]
    assert len(marks_of(root)) == 5
    for mark in marks_of(root):
        wanted = between(ticks, _numbers(mark)[1], log=True)
        assert place(mark)[1] == pytest.approx(wanted, abs=0.02)
    texts = [text.text for text in root.iter("text")]
    assert "exits (logarithmic scale)" in texts
    assert {"1,000", "10k", "100k"} <= set(texts)


def test_bars_far_apart_are_dots_that_can_be_read() -> None:
    values = {"shadow": Bar(14.05), "lsp": Bar(118_921), "ssp": Bar(None)}
    plot = Bars("", Axis("cycles", log=True), (Group("mcf-like", values),))
    root = draw(plot, NARROW)
    ticks = positions(root, "x")
    assert list(ticks) == [10, 100, 1000, 10_000, 100_000]
    assert not of_class(root, "bar")
    dots = marks_of(root)
    assert [dot.attrib["data-series"] for dot in dots] == ["shadow", "lsp"]
    for dot in dots:
        wanted = between(ticks, float(dot.attrib["data-x"]), log=True)
        assert place(dot)[0] == pytest.approx(wanted, abs=0.02)
    texts = ["".join(text.itertext()) for text in of_class(root, "value")]
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
    expected = of_class(root, "expected")
    assert re.search(r"\.expected {[^}]*stroke-dasharray", style_sheet())
    assert [path.get("data-series") for path in expected] == ["lsp, expected"]
    assert len(marks_of(root)) == 2
    ticks = positions(root, "y")
    end = float(expected[0].attrib["d"].split()[-1])
    assert end == pytest.approx(between(ticks, 100), abs=0.02)


def test_names_at_the_ends_of_curves_stand_apart_and_in_the_plot() -> None:
    plot = line_plot(*(Series(name, ((0, 0), (1, 7))) for name in POLICIES))
    root = draw(plot)
    places = [float(text.attrib["y"]) for text in of_class(root, "name")]
    assert len(places) == len(POLICIES)
    assert min(b - a for a, b in pairwise(sorted(places))) > 12
    height = float(root.attrib["viewBox"].split()[3])
    assert min(places) > 0 and max(places) < height


def test_bars_are_as_long_as_their_numbers() -> None:
    bars = {"nested": Bar(15, expected=15), "lsp": Bar(3), "ssp": Bar(None), "oos": Bar(0)}
    plot = Bars("", Axis("refs"), (Group("a", bars), Group("b", {"lsp": Bar(4, at_least=True)})), 5)
    root = draw(plot, NARROW)
    ticks = positions(root, "x")
    rects = of_class(root, "bar")
    assert [(r.attrib["data-group"], r.attrib["data-series"]) for r in rects] == [
        ("a", "nested"),
        ("a", "lsp"),
        ("a", "oos"),
        ("b", "lsp"),
    ]
    for rect in rects:
        value = float(rect.attrib["data-x"])
        xs = [float(x) for x in re.findall(r"[ML](\S+)", rect.attrib["d"])]
        assert min(xs) == pytest.approx(ticks[0], abs=0.02)
        assert max(xs) == pytest.approx(between(ticks, value), abs=0.03)
    texts = ["".join(text.itertext()) for text in of_class(root, "value")]
    assert texts == ["15 nested", "3 lsp", "not known ssp", "0 oos", "\u2265 4 lsp"]
    for kind, value in (("expected", 5), ("target", 15)):
        drawn = [place(line)[0] for line in of_class(root, kind)]
        assert drawn == pytest.approx([between(ticks, value)], abs=0.02)


def test_a_plot_can_be_read_out() -> None:
    root = draw(line_plot(Series("lsp", ((0, 1), (1, 2)))))
    ids = {element.get("id"): element.text for element in root}
    assert root.get("role") == "img"
    assert [ids[name] for name in root.attrib["aria-labelledby"].split()] == ["about it"]
    titles = [title.text for mark in marks_of(root) for title in mark.iter("title")]
    assert titles == ["lsp, x 0: 1", "lsp, x 1: 2"]


def test_a_plot_leaves_colours_fonts_and_ids_to_the_page() -> None:
    """It has no colour of matplotlib's, and nothing that another plot on the page has, too."""
    many = line_plot(*(Series(name, ((0, 1), (1, 2))) for name in (*POLICIES, "x", "y")))
    bars = Bars("", Axis("n"), (Group("a", {"lsp": Bar(4, expected=4, at_least=True)}),), 1)
    texts = [
        svg(plot, WIDE, looks(plot.names), name, "") for plot, name in ((many, "p"), (bars, "q"))
    ]
    texts += [swatch(look, name) for name, look in looks(many.names).items()]
    ids: list[str] = []
    for text in texts:
        assert not re.search(r"#[0-9a-f]{6}\b|\b(fill|stroke|style|font)\b|url\(|<script", text)
        ids += re.findall(r'\bid="([^"]+)"', text)
        assert set(re.findall(r'href="#([^"]+)"', text)) <= set(re.findall(r'\bid="([^"]+)"', text))
        used = {name for names in re.findall(r'class="([^"]+)"', text) for name in names.split()}
        colours = {f"c{place}" for place in range(len(palette()))}
        assert used - colours <= set(re.findall(r"\.([\w-]+)", style_sheet())) | {"axis"}
    assert len(ids) == len(set(ids))


def test_text_is_no_formula() -> None:
    root = draw(Bars("", Axis("$5 a_b$"), (Group("$x^2$ <b>", {"$y$": Bar(1)}),)))
    texts = ["".join(text.itertext()) for text in root.iter("text")]
    assert {"$5 a_b$", "$x^2$ <b>", "1 $y$"} <= set(texts)


def colours_of(*plots: list[str]) -> dict[str, int]:
    return {name: look.colour for name, look in looks(*plots).items()}


def test_a_policy_keeps_its_colour() -> None:
    own = {name: place for place, name in enumerate(policy_colours())}
    assert colours_of(["lsp", "shadow"]) == {"lsp": own["lsp"], "shadow": own["shadow"]}
    assert colours_of(["shadow:roots=4", "lsp"])["shadow:roots=4"] == own["shadow"]
    two = colours_of(["shadow:roots=4", "shadow", "shadow:roots=1"])
    assert two["shadow"] == own["shadow"] and len(set(two.values())) == 3
    # What is no policy gets a spare colour first.
    assert colours_of(["unheard-of", "lsp"])["unheard-of"] == len(own)
    assert policy_label("lsp:links=fence") == policy_label("lsp") != "lsp"
    assert policy_label("unheard-of") is None


def test_a_name_keeps_its_colour_on_all_plots() -> None:
    kinds = ["pt_write", "fence", "fill"]
    given_ = looks(["lsp", "shadow"], kinds, ["fence", "fast", "fault"], ["on", "off"])
    for names in (kinds, ["fence", "fast", "fault", "lsp", "shadow"], ["on", "off", "lsp"]):
        assert len({given_[name] for name in names}) == len(names)
    assert not any(look.hollow for look in given_.values())


@given(st.lists(st.sampled_from([*POLICIES, "lsp:a=1", *"xyzuvabcdefghijk"]), max_size=24))
def test_no_two_series_look_alike(names: list[str]) -> None:
    given_ = looks(names)
    assert set(given_) == set(names)
    seen = {(look.colour, look.hollow) for look in given_.values()}
    assert len(seen) == len(set(names)) or len(set(names)) >= 2 * len(palette())


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
        Axis("share", number_text.percent),
        Axis("exits"),
        (Series("lsp", ((0.0, 1200), (0.5, None))), Series("lsp", ((0.0, 1000),), expected=True)),
    )
    table = plot_tables.of_plot(plot)
    assert table.columns == ("share", "lsp", "lsp, expected")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["0\u00a0%", "1,200", "1,000"],
        ["50\u00a0%", "-", "-"],
    ]
    bars = Bars("", Axis("n"), (Group("a", {"x": Bar(4, at_least=True)}), Group("b", {})))
    rows = plot_tables.of_plot(bars).rows
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
    """Paper and colours, light and dark."""
    papers = re.findall(r"--paper: (#\w{6})", style_sheet())
    assert len(papers) == 2
    return [
        (papers[0], [colour.light for colour in palette()]),
        (papers[1], [colour.dark for colour in palette()]),
    ]


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
            assert math.dist(one, other) >= wanted, (i, j)


def _numbers(mark: Element) -> tuple[float, float]:
    return float(mark.attrib["data-x"]), float(mark.attrib["data-y"])
