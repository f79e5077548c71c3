"""The report of a sweep, for the terminal and as a page."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cosim.report.content import Report
from cosim.report.renderers import page as html
from cosim.report.renderers import terminal
from cosim.sweep.sweep_report import build
from tests.cosim.sweep.made_rows import folder_of, made


@pytest.fixture(name="report", scope="module")
def made_report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build(folder_of(tmp_path_factory.mktemp("sweep") / "tlbs", list(made())))


def test_the_answer_names_the_parameter_that_matters_most(report: Report) -> None:
    shown = StringIO()
    Console(file=shown, width=100).print(terminal.render(report))
    text = shown.getvalue()
    assert "Page-walk references move most with machine.tlb.data (lsp 67" in text
    assert "VM exits hardly move" in text
    assert re.search(r"lsp +40,000 ", text)


def test_the_page_shades_heat_maps_and_has_the_numbers(report: Report) -> None:
    text = html.render(report)
    assert 'class="heat" style="--share: 1.000"' in text
    assert 'class="heat" style="--share: 0.000"' in text
    for slug in ("effects", "curves", "heat", "break-even", "front"):
        assert f'<section id="{slug}">' in text
    found = re.search(r'id="effects-data">(.*?)</script>', text)
    assert found is not None
    assert json.loads(found[1])["walk_refs"]["machine.tlb.data"]["lsp"] == pytest.approx(0.56, 0.2)


def test_equal_configurations_share_a_line_of_the_front(tmp_path: Path) -> None:
    rows = [
        {**row, "walk_refs": row["exits"] + row["walk_cache_ways"]}
        for row in made()
        if row["policy"] != "native"
    ]
    report = build(folder_of(tmp_path / "s", rows))
    (front,) = [section for section in report.sections if section.slug == "front"]
    assert front.data is not None
    small, *_ = [one["front"] for one in front.data if one["trace"] == "small"]
    # Of the TLB's three sizes and the two costs of an exit.
    assert [(one["policy"], one["configurations"], one["settings"]) for one in small] == [
        ("nested", 6, {"machine.walk_cache_ways": "0"})
    ]


def test_a_sweep_that_goes_on_is_said(tmp_path: Path) -> None:
    report = build(folder_of(tmp_path / "s", list(made()), status="running"))
    assert "was running" in report.warnings[0]


def test_one_configuration_makes_a_report_without_plots(tmp_path: Path) -> None:
    rows = [row for row in made() if row["key"] == "small-lsp-2-0-500.0"]
    report = build(folder_of(tmp_path / "s", rows))
    assert [section.slug for section in report.sections] == ["effects", "front"]
    html.render(report)
