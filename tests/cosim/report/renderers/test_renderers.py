"""One content, several outputs: a further one is one new file."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cosim import cli
from cosim.report import from_figures, from_result, renderers
from cosim.report.content import (
    Cell,
    Listing,
    Notes,
    Paragraphs,
    Part,
    PlotGroup,
    Report,
    Section,
    Table,
)
from cosim.report.figure_document import FigureDocument
from cosim.report.renderers import page, terminal
from tests.cosim.report.documents import fig5, write_all
from tests.cosim.streams import result_document

# What somebody would write who wants reports as Markdown.
MARKDOWN = '''
"""A report as Markdown."""

from cosim.report import plot_tables
from cosim.report.content import PlotGroup, Listing, Notes, Paragraphs, Table

SUFFIXES = (".md",)


def render(report):
    lines = [f"# {report.title}", report.lead]
    lines += [f"**{warning}**" for warning in report.warnings]
    for part in report.answer:
        lines += show(part)
    for section in report.sections:
        lines.append(f"## {section.heading}")
        for part in section.parts:
            lines += show(part)
    return "\\n".join(lines)


def show(part):
    match part:
        case Paragraphs():
            return [f"### {part.heading}", part.text]
        case Notes():
            return [f"* {line}" for line in part.lines]
        case Listing():
            return ["```", part.text, "```"]
        case Table():
            rows = [part.columns, *([cell.text for cell in row] for row in part.rows)]
            return [part.caption, *("| " + " | ".join(row) + " |" for row in rows)]
        case PlotGroup():
            return [line for table in plot_tables.of_figure(part) for line in show(table)]
'''


@pytest.fixture
def markdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more file among the renderers."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "markdown_file.py").write_text(MARKDOWN)
    monkeypatch.setattr(renderers, "__path__", [*renderers.__path__, str(tmp_path / "more")])
    monkeypatch.delitem(sys.modules, "cosim.report.renderers.markdown_file", raising=False)


def report(*argv: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(["report", *map(str, argv)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.usefixtures("markdown")
def test_a_further_output_is_one_new_file(tmp_path: Path) -> None:
    """The command writes a result and the experiments in it, and nothing else was touched."""
    made = dict(result_document(missed_writes=2))
    made["policies"] = {
        "lsp": {
            "exits": {"total": None, "at_least": 250, "fence_fast": 250, "shadow_fill": None},
            "reasons": {"exits.shadow_fill": "needs every access"},
        }
    }
    (tmp_path / "result.json").write_text(json.dumps(made))
    assert report(tmp_path / "result.json", "-o", tmp_path / "result.md") == 0
    lines = (tmp_path / "result.md").read_text().splitlines()
    assert lines[0] == "# synthetic: lsp"
    assert "**The capture missed 2 writes to page tables. Do not rely on the counts.**" in lines
    assert "| exits | >= 250 |" in lines and "|   shadow_fill | - |" in lines
    assert "* shadow_fill: needs every access" in lines
    assert "| qemu | 10.0.2 |" in lines and "| lsp | lazy shadow paging |" in lines

    folder = write_all(tmp_path / "paper")
    assert report(folder, "-o", tmp_path / "paper.md") == 0
    lines = (tmp_path / "paper.md").read_text().splitlines()
    assert "| exits at 100\u00a0%, TSP (fig5) | 201,000 | 200,000 | +0.5\u00a0% |" in lines
    assert "## The figure fig7" in lines and "### What the paper says" in lines
    assert "* A note <below> the figure." in lines
    for row in fig5()["rows"]:
        assert row["exits"] is None or f"{row['exits']:,} |" in "\n".join(lines)


def test_a_suffix_without_a_renderer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is done, in one line."""
    (tmp_path / "fig5.json").write_text(json.dumps(fig5()))
    assert report(tmp_path / "fig5.json", "-o", tmp_path / "fig5.odt") == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert "ends in .odt" in err and ".htm or .html" in err
    assert report(tmp_path / "fig5.json", "-o", tmp_path / "fig5") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["fig5.json"]


WHOLE = Report(
    title="t",
    lead="l",
    warnings=("w1",),
    answer=(
        Paragraphs("LSP takes `half` of the exits."),
        Table("", ("", "exits"), ((Cell("lsp"), Cell.of(250)),)),
        Notes(("a footnote",)),
    ),
    sections=(
        Section("one", "One", (Notes(("kept",)), Notes(("left out",), detail=True))),
        Section("two", "Two", (Listing("level 2\n  level 1"), PlotGroup("f", ()))),
        Section("rest", "The rest", (Paragraphs("details", "Why"),), detail=True),
    ),
)


def text(report: Report, *, everything: bool) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(terminal.render(report, everything=everything))
    return file.getvalue()


def test_the_answer_comes_first_and_details_when_asked() -> None:
    brief, whole = text(WHOLE, everything=False), text(WHOLE, everything=True)
    for shown in (brief, whole):
        parts = ["Warning: w1", "half", "250", "- a footnote", "One", "- kept", "Two", "  level 1"]
        places = [shown.index(part) for part in parts]
        assert places == sorted(places)
    for detail in ("left out", "The rest", "details", "Why"):
        assert detail not in brief and detail in whole
    html = page.render(WHOLE)
    places = [
        html.index(part)
        for part in ("w1", "<code>half</code>", ">250<", "a footnote", "<main>", "left out", "Why")
    ]
    assert places == sorted(places)
    assert "<pre>level 2\n  level 1</pre>" in html


def test_a_part_that_a_renderer_does_not_know_is_an_error() -> None:
    class Sound(Part):
        pass

    made = Report("t", "l", (Section("s", "h", (Sound(),)),))
    with pytest.raises(TypeError, match="Sound"):
        text(made, everything=True)
    with pytest.raises(TypeError, match="Sound"):
        page.render(made)


def test_terminal_and_page_have_the_same_tables() -> None:
    """Each number that the terminal shows is on the page, with the same text."""
    for made in (
        from_result.build(result_document(illegal=1)),
        from_figures.build([FigureDocument(fig5(), "x")], "t"),
    ):
        html = page.render(made)
        for section in made.sections:
            for part in section.shown(everything=False):
                for row in part.rows if isinstance(part, Table) else ():
                    for cell in row:
                        assert f">{cell.text}<" in html


def test_what_draws_nothing_does_not_wait_for_matplotlib() -> None:
    """Neither a result's table nor what the commands import."""
    script = (
        "import sys, json; from cosim import cli; from cosim.session import execution;"
        "from cosim.report import from_result; from cosim.report.renderers import terminal;"
        "from cosim.commands import replay, report;"
        "terminal.render(from_result.build(json.load(sys.stdin)));"
        "print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(result_document()),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ran.stdout, ran.returncode) == ("[]\n", 0), ran.stderr
