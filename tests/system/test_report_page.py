"""The page in a real browser: phone, laptop, paper; dark and light; its figures are its data."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosim.report import from_path, renderers
from tests.cosim.report.documents import DOCUMENTS, write_all
from tests.system.chromium import Chromium, chromium

pytestmark = pytest.mark.system

PHONE, LAPTOP = 390, 1280
PAPERS = {"light": "rgb(252, 252, 251)", "dark": "rgb(26, 26, 25)"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


# Name, count and width of what is at the bottom of each flame graph of a section.
_FLAMES = """
[...document.querySelectorAll('#SECTION svg.flame')].map(svg => {
  const root = svg.querySelector('g');
  return [root.dataset.label, Number(root.dataset.value),
          root.querySelector('rect').getBoundingClientRect().width]; })
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_all(tmp_path_factory.mktemp("report") / "r")
    renderers.write(from_path.load(folder, lambda *_: None), folder / "report.html")
    return folder / "report.html"


def open_page(browser: Chromium, path: Path, width: int, scheme: str = "light") -> None:
    """Open, and check what holds for every page: nothing fetched, nothing said, nothing cut."""
    browser.console.clear()
    browser.requests.clear()
    browser.open(path, width=width, scheme=scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelector('h1').textContent.length") > 0
    assert browser.console == []
    # The one other address is the empty icon inside the page.
    assert [url for url in browser.requests if not url.startswith("data:")] == [path.as_uri()]


# The boxes of all texts in each plot that shows, and of the plot itself.
_BOXES = """
[...document.querySelectorAll('figure svg[role=img]')].filter(svg => svg.checkVisibility()).map(
  svg => {
    const box = e => { const b = e.getBoundingClientRect();
                       return [b.left, b.top, b.right, b.bottom]; };
    return {plot: box(svg), size: parseFloat(getComputedStyle(svg.querySelector('text')).fontSize)
              * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width,
            texts: [...svg.querySelectorAll('text')].map(t => [t.textContent, box(t)])};
  })
"""


def overlap(one: list[float], other: list[float]) -> bool:
    """Whether two boxes share more than a hair's breadth."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    # A line of text is higher than its letters.
    return width > 1 and height > 3


@pytest.mark.parametrize("scheme", PAPERS)
@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_the_page_renders(browser: Chromium, figures: Path, width: int, scheme: str) -> None:
    open_page(browser, figures, width, scheme)
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == PAPERS[scheme]
    plots = browser.evaluate(_BOXES)
    # fig5 has two, fig6 two, refs one, fig7 two, beyond five.
    assert len(plots) == 12
    # Of the tables of fig6 with their narrow numbers nothing is out of sight, even on a phone.
    cut = (
        "[...document.querySelectorAll('#fig6 .scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    )
    assert browser.evaluate(f"{cut}.length") == 0
    for plot in plots:
        left, top, right, bottom = plot["plot"]
        assert right - left > 0.7 * min(width, 430)
        assert plot["size"] >= 10
        for text, box in plot["texts"]:
            assert box[0] >= left - 2 and box[2] <= right + 8, text
            assert box[1] >= top - 2 and box[3] <= bottom + 2, text
        for number, (text, box) in enumerate(plot["texts"]):
            for other, other_box in plot["texts"][number + 1 :]:
                assert not overlap(box, other_box), (text, other)


# The marks of the plots that show, with where the browser put them, and the ticks of the axes.
_MARKS = """
[...document.querySelectorAll('#SECTION figure svg[role=img]')]
  .filter(svg => svg.checkVisibility()).map(svg => {
    const middle = e => { const b = e.getBoundingClientRect();
                          return [(b.left + b.right) / 2, (b.top + b.bottom) / 2]; };
    const end = e => { const b = e.getBoundingClientRect(); return [b.right, b.top]; };
    return {
      ticks: [...svg.querySelectorAll('[data-axis]')].map(
        t => [t.dataset.axis, parseFloat(t.dataset.value), ...middle(t)]),
      marks: [...svg.querySelectorAll('use[data-y]')].map(
        m => [m.dataset.series, parseFloat(m.dataset.x), parseFloat(m.dataset.y), ...middle(m)]),
      dots: [...svg.querySelectorAll('use[data-group]')].map(
        m => [m.dataset.group, m.dataset.series, parseFloat(m.dataset.x), ...middle(m)]),
      bars: [...svg.querySelectorAll('path[data-x]')].map(
        m => [m.dataset.group, m.dataset.series, parseFloat(m.dataset.x), ...end(m)]),
    };
  })
"""


def read(browser: Chromium, section: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a section's plots show, and the rows of its data."""
    data = f"JSON.parse(document.getElementById('{section}-data').textContent).rows"
    marks: list[dict[str, Any]] = browser.evaluate(_MARKS.replace("SECTION", section))
    return marks, browser.evaluate(data)


def line(plot: dict[str, Any], axis: str) -> tuple[float, float]:
    """Pixels at 0 and per unit along a linear axis, from its first and last tick."""
    at = 2 if axis == "x" else 3
    ticks = sorted((tick[1], tick[at]) for tick in plot["ticks"] if tick[0] == axis)
    (low, start), (high, end) = ticks[0], ticks[-1]
    unit = (end - start) / (high - low)
    return start - low * unit, unit


@pytest.mark.parametrize("width", [PHONE, LAPTOP])
def test_the_curves_are_the_data(browser: Chromium, figures: Path, width: int) -> None:
    open_page(browser, figures, width)
    plots, rows = read(browser, "fig5")
    assert rows == DOCUMENTS["fig5"]()["rows"]
    programs = list(dict.fromkeys(row["program"] for row in rows))
    for program, plot in zip(programs, plots, strict=True):
        known = sorted(
            (row["policy"], row["share"], row["exits"])
            for row in rows
            if row["program"] == program and row["exits"] is not None
        )
        assert sorted((name, x, y) for name, x, y, _, _ in plot["marks"]) == known
        (x_zero, x_unit), (y_zero, y_unit) = line(plot, "x"), line(plot, "y")
        for name, x, y, at_x, at_y in plot["marks"]:
            assert abs(at_x - (x_zero + x * x_unit)) < 1, name
            # The middle of a triangle's box is a little off its point.
            assert abs(at_y - (y_zero + y * y_unit)) < 1.5, name


def test_the_bars_are_the_data(browser: Chromium, figures: Path) -> None:
    open_page(browser, figures, LAPTOP)
    plots, rows = read(browser, "fig7")
    assert rows == DOCUMENTS["fig7"]()["rows"]
    for key, plot in zip(("tlb_misses_vs_nested", "exits_vs_shadow"), plots, strict=True):
        known = [(row["policy"], row[key]) for row in rows if row[key] is not None]
        assert [(name, value) for _, name, value, _, _ in plot["bars"]] == known
        zero, unit = line(plot, "x")
        for group, name, value, end, _ in plot["bars"]:
            assert abs(end - (zero + value * unit)) < 1, (group, name)


def test_the_dots_are_the_data(browser: Chromium, figures: Path) -> None:
    open_page(browser, figures, LAPTOP)
    plots, rows = read(browser, "beyond")
    (plot,) = (plot for plot in plots if plot["dots"])
    known = [(row["series"], row["y"]) for row in rows if row["panel"] == "Break-even"]
    assert [(name, value) for _, name, value, _, _ in plot["dots"]] == known
    (low, start), *_, (high, end) = ((tick[1], tick[2]) for tick in plot["ticks"])
    for group, name, value, at, _ in plot["dots"]:
        wanted = start + math.log(value / low) / math.log(high / low) * (end - start)
        assert abs(at - wanted) < 1, (group, name)


# Of each figure of a section: its legend, its plots and its tables, as boxes.
_PARTS = """
[...document.querySelectorAll('#SECTION figure')].map(figure => {
  const boxes = sign => [...figure.querySelectorAll(sign)].filter(e => e.checkVisibility()).map(
    e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; });
  return {legend: boxes('.legend'), plots: boxes('.plot'), tables: boxes('table')};
})
"""


def test_legends_and_numbers_are_near_their_panels(browser: Chromium, figures: Path) -> None:
    open_page(browser, figures, LAPTOP)
    parts = browser.evaluate(_PARTS.replace("SECTION", "beyond"))
    assert [len(part["plots"]) for part in parts] == [1, 2, 1, 1]
    assert [len(part["legend"]) for part in parts] == [1, 1, 0, 0]
    for part in parts:
        first = part["plots"][0]
        for legend in part["legend"]:
            assert 0 <= first[1] - legend[3] < 30
        assert part["tables"][0][1] - max(plot[3] for plot in part["plots"]) < 60
    # A narrow plot has its numbers beside it.
    for part in parts[2:]:
        (plot,), (table,) = part["plots"], part["tables"]
        assert table[0] > plot[2] and table[1] < plot[3]


def test_the_page_on_paper(browser: Chromium, figures: Path) -> None:
    # A reader who prefers dark prints on white paper all the same.
    open_page(browser, figures, 700, "dark")
    browser.call("Emulation.setEmulatedMedia", media="print")
    ink = browser.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(28, 28, 26)"
    assert browser.evaluate("document.documentElement.scrollWidth") <= 700
    assert browser.evaluate("document.querySelector('.plot.wide').checkVisibility()")
    assert not browser.evaluate("document.querySelector('.plot.narrow').checkVisibility()")
    cut = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert browser.evaluate(f"{cut}.length") == 0
    assert min(plot["size"] for plot in browser.evaluate(_BOXES)) >= 9
    # A table is on one page, with its caption.
    breaks = "[...document.querySelectorAll('.scroll')].map(e => getComputedStyle(e).breakInside)"
    assert set(browser.evaluate(breaks)) == {"avoid"}
    data = browser.pdf()
    assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
    pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 4 <= pages <= 16


def test_the_page_of_a_real_run(browser: Chromium, tmp_path: Path) -> None:
    workload = "scenario=lsp-bench pages=64 ops=500 share=50"
    cosim = [sys.executable, "-c", "from cosim.cli import main; main()"]
    arguments = ["run", "micro", "--backend", "plugin", "--workload", workload, "--json"]
    run = subprocess.run(
        [*cosim, *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    (tmp_path / "result.json").write_text(run.stdout)
    report = from_path.load(tmp_path / "result.json", lambda *_: None)
    renderers.write(report, tmp_path / "page.html")
    for width in (PHONE, LAPTOP):
        open_page(browser, tmp_path / "page.html", width)
        totals, kinds = browser.evaluate(_MARKS.replace("SECTION", "exits"))
        assert {name: value for _, name, value, _, _ in totals["bars"]} == {
            name: policy["exits"]["total"] for name, policy in result["policies"].items()
        }
        for kind, name, value, _, _ in kinds["bars"]:
            assert result["policies"][name]["exits"][kind] == value
        # Of 250 modifications each was a trapped store and a fence, or a fence on the fast path.
        shown = {(kind, name): value for kind, name, value, _, _ in kinds["bars"]}
        assert shown["pt_write", "shadow"] == shown["fence_fast", "lsp"] == 250
        for what in ("exits", "misses"):
            roots = browser.evaluate(_FLAMES.replace("SECTION", f"causes-{what}"))
            counts = {
                name: policy["exits"]["total"] if what == "exits" else policy["tlb_misses"]
                for name, policy in result["policies"].items()
            }
            assert {name: value for name, value, _ in roots} == {
                name: count for name, count in counts.items() if count
            }
            assert all(drawn > 300 for _, _, drawn in roots)
