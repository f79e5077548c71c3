"""`cosim report`: what it takes, the page it writes, errors in one line."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from synthetic_guest import SyntheticGuest

from cosim import cli
from cosim.report import from_figures, from_path, settings
from cosim.report.content import (
    Cell,
    Lines,
    Notes,
    Paragraphs,
    PlotGroup,
    Report,
    Section,
    Table,
)
from cosim.report.figure_document import ORDER, FigureDocument
from cosim.report.renderers import page, terminal
from cosim.report.renderers.plots import NARROW, svg
from cosim.report.series_looks import looks
from cosim.reproduce.experiments import EXPERIMENTS
from tests.cosim.report.documents import DOCUMENTS, beyond, document, fig5, fig6, fig7, write_all
from tests.cosim.streams import result_document, write_trace

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `cosim report` in this process: exit status, stdout, stderr."""

    def run(*argv: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["report", *map(str, argv)])
        output = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, output.out, output.err

    return run


def figures_of(section: Section) -> list[PlotGroup]:
    return [part for part in section.parts if isinstance(part, PlotGroup)]


class Reader(HTMLParser):
    """The tables, texts, addresses and data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.data: dict[str, Any] = {}
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.warnings: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append((tag, dict(attrs)))
        for name in ("src", "href", "action", "data", "xlink:href"):
            if name in dict(attrs):
                self.addresses.append(str(dict(attrs)[name]))
        match tag:
            case "table":
                self._rows, self._caption = [], ""
            case "tr":
                self._rows.append([])
            case "td" | "th":
                self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag in ("td", "th"):
            self._rows[-1][-1] += data
        elif tag == "caption":
            self._caption += data
        elif tag == "script":
            assert attributes["type"] == "application/json"
            self.data[str(attributes["id"])] = json.loads(data)
        elif attributes.get("class") == "warning":
            self.warnings.append(data)


def result(**policies: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = dict(result_document())
    made["policies"] = {
        name: {"exits": {"at_least": 0, "total": 0}, "reasons": {}, **policy}
        for name, policy in policies.items()
    }
    # It is computed from the policies if it is not there, as in older results.
    del made["derived"]
    return made


def test_a_result_becomes_a_page_beside_it(report: Run, tmp_path: Path) -> None:
    shadow = {
        "exits": {"total": 1531, "at_least": 1531, "pt_write": 1500, "fence": 31, "satp_write": 0},
        "tlb_misses": 200,
        "walk_refs": {"vs": 600, "g": 0},
    }
    lsp = {
        "exits": {"total": None, "at_least": 250, "fence_fast": 250, "shadow_fill": None},
        "tlb_misses": None,
        "walk_refs": None,
        "reasons": {"exits.shadow_fill": "needs every access"},
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result(shadow=shadow, lsp=lsp)))
    status, out, err = report(path)
    assert status == 0
    assert "1,531" in out and str(tmp_path / "result.html") in err
    text = (tmp_path / "result.html").read_text()
    read = Reader(text)
    assert read.tables["VM exits, all kinds"] == [["", "shadow", "lsp"], ["", "1,531", "≥ 250"]]
    assert read.tables["VM exits by kind"] == [
        ["", "shadow", "lsp"],
        ["pt_write", "1,500", ""],
        ["fence", "31", ""],
        ["fence_fast", "", "250"],
        ["shadow_fill", "", "-"],
    ]
    assert read.tables["TLB misses"] == [["", "shadow", "lsp"], ["", "200", "-"]]
    assert read.tables["references for each TLB miss"][1] == ["", "3.00", "-"]
    assert "shadow_fill: needs every access" in text
    assert read.data["counts-data"] == json.loads(path.read_text())
    assert read.warnings == []


def test_a_command_line_can_be_copied() -> None:
    made = settings.table("Guest", {"arguments": ["qemu", "-append", "a b"], "kernel": None})
    assert [[cell.text for cell in row] for row in made.rows] == [
        ["arguments", "qemu -append 'a b'"],
        ["kernel", "none"],
    ]


def test_findings_stand_first(report: Run, tmp_path: Path) -> None:
    made: dict[str, Any] = dict(result_document(illegal=3, missed_writes=2))
    made.update(complete=False, incomplete_because="the guest <hung>")
    (tmp_path / "result.json").write_text(json.dumps(made))
    assert report(tmp_path)[0] == 0
    read = Reader((tmp_path / "report.html").read_text())
    assert [line.partition(":")[0] for line in read.warnings] == [
        "The run is incomplete",
        "reference",
        "The capture missed 2 writes to page tables. Do not rely on the counts.",
    ]
    assert "the guest <hung>" in read.warnings[0]


def test_a_trace_is_replayed(report: Run, tmp_path: Path) -> None:
    (batch,) = SyntheticGuest(pages=20).batches(2000)
    write_trace(tmp_path / "t", batch)
    status, out, _ = report(tmp_path / "t", "-o", tmp_path / "page.html", "--json")
    assert status == 0
    answer = json.loads(out)
    assert answer["page"] == str(tmp_path / "page.html")
    assert answer["bytes"] == (tmp_path / "page.html").stat().st_size
    data = Reader((tmp_path / "page.html").read_text()).data["counts-data"]
    assert data["events"]["total"] == len(batch)
    assert list(data["policies"]) == ["native", "nested", "shadow", "lsp"]
    assert not list((tmp_path / "t").glob("*.html"))


def test_the_figures_of_the_paper(report: Run, tmp_path: Path) -> None:
    write_all(tmp_path / "r")
    (tmp_path / "r" / "other.json").write_text('{"no": "figure"}')
    status, out, _ = report(tmp_path / "r")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    text = (tmp_path / "r" / "report.html").read_text()
    read = Reader(text)
    assert re.findall(r'<section id="(\w+)"', text) == ["fig5", "fig6", "refs", "fig7", "beyond"]
    assert read.data == {f"{name}-data": make() for name, make in DOCUMENTS.items()}
    for label in ("What was measured", "What the paper says", "Where they differ, and why"):
        assert text.count(f"<h3>{label}</h3>") == 5
    assert read.tables["Measured, next to the paper's numbers"][1:] == [
        ["exits at 100\u00a0%, TSP (fig5)", "201,000", "200,000", "+0.5\u00a0%"],
        ["fewer exits (fig5)", "50\u00a0%", "up to 50\u00a0%", ""],
    ]
    assert "vtlb, oos and ssp are equal" not in text  # oos lacks one point.
    assert "lsp, vtlb and ssp are equal at every point" in text
    ratios = read.tables["VM exits, shadow = 1"]
    assert [row[0] for row in ratios[1:4]] == [
        "cc1 (403.gcc)",
        "mincost (stand-in for 429.mcf)",
        "lattice (stand-in for 433.milc)",
    ]
    assert ratios[-1][ratios[0].index("lsp")] == "-"
    assert "A note &lt;below&gt; the figure." in text


def test_stand_ins_are_called_so_wherever_they_are_shown() -> None:
    rows = [
        {"panel": "Break-even (mcf-like)", "series": "lsp", "x": x, "y": 3}
        for x in ("cc1", "mcf-like", "python3")
    ]
    made = document(
        "beyond",
        rows,
        settings={"sizes": {"milc-like": "4 4"}, "programs": "cc1, astar-like, milc-like"},
        difference="astar-like has few misses, as astar-like has few pages.",
        measured="mcf-like is a stand-in.\n\nBut astar-like runs longer.",
        claims=[{"claim": "misses of mcf-like", "measured": "more (milc-like)", "paper": None}],
        notes=["mcf-like, not-mcf-like and mcf-likely"],
    )
    report = from_figures.build([FigureDocument(made, "x")], "t")
    read = Reader(page.render(report))
    mcf, milc = "mcf-like (stand-in for 429.mcf)", "milc-like (stand-in for 433.milc)"
    astar = "astar-like (stand-in for 473.astar)"
    bars = read.tables["Break-even (mcf-like, stand-in for 429.mcf): "]
    assert [row[0] for row in bars[1:]] == ["cc1 (403.gcc)", mcf, "python3"]
    assert ["sizes." + milc, "4 4"] in read.tables["Settings"]
    assert ["programs", f"cc1, {astar}, {milc}"] in read.tables["Settings"]
    claim = read.tables["Measured, next to the paper's numbers"][1]
    assert claim[:2] == [f"misses of {mcf} (beyond)", "more (milc-like, stand-in for 433.milc)"]
    (section,) = report.sections
    texts = [part.text for part in section.parts if isinstance(part, Paragraphs)]
    assert texts[0] == f"mcf-like is a stand-in.\n\nBut {astar} runs longer."
    assert texts[2] == f"{astar} has few misses, as astar-like has few pages."
    (notes,) = (part for part in section.parts if isinstance(part, Notes))
    assert notes.lines == (f"{mcf}, not-mcf-like and mcf-likely",)
    assert section.data == made
    assert mcf in "\n".join(shown(terminal.render(report)))


def test_panels_have_their_legend_and_numbers_near() -> None:
    (section,) = from_figures.build([FigureDocument(beyond(), "x")], "t").sections
    titles = [[plot.title for plot in figure.plots] for figure in figures_of(section)]
    assert titles == [
        ["TLB size"],
        ["Footprint", "Footprint of all"],
        ["Svvptc"],
        ["Break-even"],
    ]
    text = page.render(Report("t", "l", (section,)))
    for figure in text.split("<figure ")[1:]:
        inside = figure.partition("</figure>")[0]
        assert "<table" in inside
        assert inside.startswith('id="beyond') and ('class="legend"' in inside) == (
            'class="curve' in inside
        )


def test_panels_of_one_figure_have_one_scale() -> None:
    (section,) = from_figures.build([FigureDocument(beyond(), "x")], "t").sections
    one, other = figures_of(section)[1].plots
    assert max(one.values) == 2 * max(other.values)
    ticks = [
        re.findall(
            r'data-axis="y" data-value="([^"]+)"', svg(plot, NARROW, looks(plot.names), "p", "")
        )
        for plot in (one, other)
    ]
    assert ticks[0] == ticks[1] and len(ticks[0]) > 2


def test_counts_far_apart_are_on_a_logarithmic_scale() -> None:
    documents = [FigureDocument(make(), "x") for make in (fig5, fig6, beyond)]
    made = from_figures.build(documents, "t")
    log = [
        plot.title
        for section in made.sections
        for figure in figures_of(section)
        for plot in figure.plots
        if (plot.y if isinstance(plot, Lines) else plot.axis).log
    ]
    assert log == ["global fences", "Break-even"]
    assert page.render(made).count("(logarithmic scale)") == len(log)


def test_what_synchronising_reads_is_shown(tmp_path: Path) -> None:
    made = from_figures.build([FigureDocument(fig6(), "x")], "t")
    rows = Reader(page.render(made)).tables["global fences: entries read to synchronise"]
    assert rows[0] == ["modifications for each fence", "lsp", "vtlb"]
    assert rows[3] == ["4", "642,500", "642,500"]


def test_every_number_of_a_row_is_in_a_table() -> None:
    for make in (fig5, fig6, fig7, beyond):
        made = from_figures.build([FigureDocument(make(), "x")], "t")
        shown = set(re.findall(r'data-value="([^"]+)"', page.render(made)))
        for row in make()["rows"]:
            for key, value in row.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    assert str(value) in shown, (key, value)


def test_warnings_of_figures_stand_first(report: Run, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "r")
    bad = "DO NOT RELY ON THIS: 77 of 900 translations were <illegal>."
    (folder / "fig7.json").write_text(json.dumps({**fig7(), "warnings": [bad]}))
    status, out, _ = report(folder)
    assert status == 0
    assert Reader((folder / "report.html").read_text()).warnings == [f"fig7: {bad}"]
    assert out.startswith(f"Warning: fig7: {bad}\n")


def test_a_page_says_that_it_mixes_sizes(report: Run, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "r")
    for name, make in DOCUMENTS.items():
        (folder / f"{name}.json").write_text(json.dumps({**make(), "quick": name == "fig6"}))
    assert report(folder)[0] == 0
    assert Reader((folder / "report.html").read_text()).warnings == [
        "Sizes are mixed: fig6 of a quick run (small sizes), fig5, refs, fig7, beyond of a full "
        "one. Do not compare their counts."
    ]
    for name, make in DOCUMENTS.items():
        (folder / f"{name}.json").write_text(json.dumps({**make(), "quick": True}))
    assert report(folder)[0] == 0
    assert Reader((folder / "report.html").read_text()).warnings == []


def test_files_of_others_are_left_alone(report: Run, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "r")
    (folder / "mine.json").write_text("{broken")
    (folder / "theirs.json").write_text(json.dumps({"figure": "fig5"}))
    assert report(folder)[0] == 0
    (folder / "fig6.json").write_text("{broken")
    status, _, err = report(folder)
    assert status == 2 and "fig6.json: is not a JSON document" in err


def test_the_order_names_every_experiment() -> None:
    assert set(ORDER) == {*EXPERIMENTS, "fig5-linux"}


def test_one_figure_alone(report: Run, tmp_path: Path) -> None:
    (tmp_path / "fig5.json").write_text(json.dumps(fig5()))
    status, out, _ = report(tmp_path / "fig5.json", "--json")
    assert (status, json.loads(out)["sections"]) == (0, ["fig5"])
    assert (tmp_path / "fig5.html").exists()


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    text = page.render(from_path.load(write_all(tmp_path / "r"), lambda *_: None))
    read = Reader(text)
    assert all(re.fullmatch(r"#[\w-]+|data:,", address) for address in read.addresses)
    assert not {"iframe", "object", "embed", "img", "form", "base"} & set(read.tags)
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text
    # Ids are unique: the drawings refer to their titles by them.
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_hostile_text_stays_text() -> None:
    evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>&amp;\"'"
    rows = [{"panel": evil, "series": evil, "x": x, "y": 1} for x in (1, 2)]
    rows += [{"panel": "bars", "series": evil, "x": evil, "y": 1}]
    texts = dict.fromkeys(("title", "measured", "paper", "difference"), evil)
    made = document("beyond", rows, settings={evil: evil}, notes=[evil], **texts)
    text = page.render(from_figures.build([FigureDocument(made, "x")], evil))
    read = Reader(text)
    assert read.tags.count("script") == 1 and "img" not in read.tags
    assert read.data["beyond-data"] == made


def test_backticks_are_code() -> None:
    def prose(text: str) -> str:
        whole = page.render(Report("t", text, ()))
        return whole[whole.index("<p>") : whole.index("</header>")].split("</p>")[0]

    assert prose("`a<b` and `c`") == "<p><code>a&lt;b</code> and <code>c</code>"
    assert prose("`9 %` of 9 % %d") == "<p><code>9 %</code> of 9\u00a0% %d"
    assert prose("it`s 9 %") == "<p>it`s 9\u00a0%"
    assert prose("it`s <b>") == "<p>it`s &lt;b&gt;"


def test_an_empty_section_is_no_error() -> None:
    text = page.render(Report("t", "l", (Section("s", "h", ()),)))
    assert "<h2>h</h2>" in text and "<figure" not in text


def _broken(**change: Any) -> dict[str, Any]:
    return {**fig5(), **change}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not a JSON document"),
        ("[1, 2]", "is neither a result"),
        (_broken(warnings="x"), "warnings is 'x', not list"),
        (_broken(quick=1), "quick is 1, not bool"),
        ('{"output": "x", "runs": []}', "is neither a result"),
        ({"format": "lsp-cosim-result", "version": 99}, "a result of version 99"),
        ({"format": "lsp-cosim-result", "version": 1}, "a damaged result"),
        ({**result_document(), "policies": {"lsp": {}}}, "a damaged result"),
        ({**result_document(), "events": 3}, "a damaged result"),
        (result(lsp={"exits": {"total": "many", "at_least": 0}}), "a damaged result"),
        (_broken(rows=[]), "rows is empty"),
        (_broken(rows=3), "rows is 3, not list"),
        (_broken(rows=["x"]), "rows 1 is not an object"),
        (_broken(title=None), "title is None, not text"),
        (_broken(paper=3), "paper is 3, not text"),
        (_broken(figure="fig 5"), "figure is 'fig 5', not a name of"),
        (_broken(claims=[{"claim": "x", "measured": [], "paper": 1}]), "claims 1: measured is []"),
        (_broken(rows=[{"share": 50, "policy": "lsp", "exits": 1}]), "rows 1: share is 50, not"),
        (_broken(rows=[{"share": 0, "policy": 1, "exits": 1}]), "rows 1: policy is 1, not text"),
        (_broken(rows=[{"share": 0, "policy": "a", "exits": "1"}]), "rows 1: exits is '1', not"),
        (_broken(rows=[{"share": 0, "policy": "a", "exits": float("nan")}]), "exits is nan, not"),
        (_broken(rows=[{"share": 0, "policy": "a", "exits": True}]), "exits is True, not"),
        (
            _broken(rows=[{"share": 0, "policy": "a", "exits": 1}] * 2),
            "rows 2: a second row of a with share 0",
        ),
        ({**beyond(), "rows": [{"panel": "p", "series": "s", "x": 1, "y": 1, "y_unit": "m"}]}, "m"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    report: Run, tmp_path: Path, content: Any, says: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    status, out, err = report(path)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert says in err and "x.json" in err
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_hold_nothing(report: Run, tmp_path: Path) -> None:
    status, out, err = report(tmp_path)
    assert (status, out) == (2, "")
    assert "holds no result, no trace and no figure" in err
    status, _, err = report(tmp_path / "nowhere")
    assert status == 2 and "there is no such file or folder" in err
    for name in ("fig5", "fig6"):
        (tmp_path / f"{name}.json").write_text(json.dumps(fig5()))
    status, _, err = report(tmp_path)
    assert status == 2 and "two documents are both figure fig5" in err
    assert not list(tmp_path.glob("*.html"))


def test_a_page_that_cannot_be_written(report: Run, tmp_path: Path) -> None:
    (tmp_path / "fig5.json").write_text(json.dumps(fig5()))
    status, out, err = report(tmp_path / "fig5.json", "-o", tmp_path / "no" / "page.html")
    assert (status, out) == (3, "")
    assert len(err.splitlines()) == 1 and "cannot write" in err
    (tmp_path / "page.html").write_text("before")
    if Path("/dev/full").exists():
        (tmp_path / f".page.html.{os.getpid()}.part").symlink_to("/dev/full")
        assert report(tmp_path / "fig5.json", "-o", tmp_path / "page.html")[0] == 3
    assert (tmp_path / "page.html").read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"fig5.json", "page.html"}


def shown(terminal: RenderableType, width: int = 100) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(terminal)
    return file.getvalue().splitlines()


@given(
    st.lists(st.text("abcdefgh ", max_size=30), min_size=2, max_size=12),
    st.integers(1, 10**12),
    st.integers(0, 60),
    st.sampled_from([60, 80, 100]),
)
def test_terminal_tables_fit_and_lose_nothing(
    columns: list[str], largest: int, name_width: int, width: int
) -> None:
    numbers = [largest - n for n in range(len(columns) - 1)]
    cells = (Cell("n" * name_width), *map(Cell.of, numbers))
    lines = shown(terminal.Fitted(Table("caption", tuple(columns), (cells,))), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    found = [int(text.replace(",", "")) for text in re.findall(r"-?\d[\d,]*", " ".join(lines))]
    assert found == numbers


@pytest.mark.parametrize(("width", "tables_made"), [(100, 1), (76, 1), (60, 2)])
def test_names_are_wrapped_before_a_table_is_parted(width: int, tables_made: int) -> None:
    cells = (Cell("exits of LSP at 100 % of the operations"), *map(Cell.of, [10**15] * 2))
    made = Table("caption", ("", "measured", "paper"), (cells,))
    assert "\n".join(shown(terminal.Fitted(made), width)).count("caption") == tables_made


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_shows_every_count(tmp_path: Path, width: int) -> None:
    report = from_path.load(write_all(tmp_path / "r"), lambda *_: None)
    text = "\n".join(shown(terminal.render(report), width))
    for row in fig5()["rows"]:
        if row["exits"] is not None:
            assert f"{row['exits']:,}" in text
