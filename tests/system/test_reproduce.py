"""The paper's experiments on real guests: one quick run of all, its shapes, and the command."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cosim.paths import SOURCE
from cosim.reproduce import Counts, Lab, beyond, experiments, fig5, fig6, fig7, refs
from cosim.reproduce.timeline import Timeline
from tests.system.chromium import chromium

# Whichever test comes first waits for the measurements that it asks for.
pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(900)]

_COSIM = "from cosim.cli import main; main()"
_NAMES = ("fig5", "fig5-linux", "fig6", "refs", "fig7", "beyond")

PAGES, OPERATIONS = fig5.QUICK.pages, fig5.QUICK.operations


class Run(NamedTuple):
    """A quick run of all experiments."""

    folder: Path
    document: dict[str, Any]
    """What the command printed."""

    def results(self, name: str) -> dict[str, Timeline]:
        """What was measured for an experiment; nothing is measured for that."""
        lab = Lab(self.folder)
        plan = experiments.EXPERIMENTS[name].plan(quick=True)
        assert all(lab.is_measured(measurement) for measurement in plan.values())
        return {key: lab.measure(measurement) for key, measurement in plan.items()}

    def rows(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The rows of a figure's document that have these fields."""
        document = json.loads((self.folder / f"{name}.json").read_text())
        return [row for row in document["rows"] if fields.items() <= row.items()]


def _reproduce(folder: Path, what: str = "all") -> dict[str, Any]:
    command = [sys.executable, "-c", _COSIM, "reproduce", what, "-o", str(folder)]
    command += ["--quick", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests here leave their measurements, and find those of the others."""
    return tmp_path_factory.mktemp("quick")


@pytest.fixture(scope="module")
def quick(measured: Path) -> Run:
    return Run(measured, _reproduce(measured))


def _exits(counts: Counts, model: str, *kinds: str) -> int:
    number = counts.exits(model, *kinds)
    assert number is not None
    return number


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_one_experiment_alone(measured: Path, name: str) -> None:
    document = _reproduce(measured, name)
    assert {figure["figure"] for figure in document["figures"]} <= set(_NAMES)
    assert document["figures"][0]["figure"] == name
    assert document["figures"][0]["rows"]


def test_the_command_leaves_data_and_page_and_resumes(quick: Run) -> None:
    """JSON, CSV and page; the second time nothing is measured."""
    folder, document = quick
    assert tuple(figure["figure"] for figure in document["figures"]) == _NAMES
    page = (folder / "index.html").read_text()
    for figure in document["figures"]:
        name = figure["figure"]
        assert json.loads((folder / f"{name}.json").read_text()) == figure
        with (folder / f"{name}.csv").open() as file:
            assert len(list(csv.DictReader(file))) == len(figure["rows"])
        assert figure["title"] in page
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    assert len(before) > 100
    assert _reproduce(folder) == document
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*")} == before


@pytest.mark.parametrize("name", _NAMES)
def test_what_every_figure_says(quick: Run, name: str) -> None:
    (figure,) = (one for one in quick.document["figures"] if one["figure"] == name)
    assert figure["quick"]
    assert figure["title"].endswith("(quick run)")
    assert "This is a quick run" in figure["measured"]
    assert figure["warnings"] == []
    assert any("none illegal" in note for note in figure["notes"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", figure["settings"]["QEMU"])
    assert "rv64" in figure["settings"]["CPU"]
    packages = figure["settings"].get("Debian packages in the guest")
    # Three figures are made in the bare guest alone, which has no packages.
    assert (packages is None) == (name in ("fig5", "fig6", "refs"))
    if packages is not None:
        assert any(package.startswith("linux-image-") for package in packages)
    texts = " ".join((figure["measured"], figure["difference"], *figure["notes"]))
    assert not re.search(r"\d%", texts)
    assert all(claim["departure"] for claim in figure["claims"])


def test_the_page_shows_the_data_that_was_measured(quick: Run) -> None:
    """In a browser, at the width of a phone and of a laptop; nothing is fetched for it."""
    page = quick.folder / "index.html"
    with chromium() as browser:
        for width in (390, 1280):
            browser.open(page, width=width)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        for figure in quick.document["figures"]:
            data = f"JSON.parse(document.getElementById('{figure['figure']}-data').textContent)"
            assert browser.evaluate(data) == figure
            plots = f"document.querySelectorAll('#{figure['figure']} figure svg').length"
            assert browser.evaluate(plots) > 0
        assert browser.console == []
        fetched = {url for url in browser.requests if not url.startswith("data:")}
        assert fetched == {page.as_uri()}


def test_a_stand_in_is_named_one_everywhere(quick: Run) -> None:
    for row in quick.rows("beyond"):
        if isinstance(row["x"], str) and "-like" in row["x"]:
            assert "stand-in for" in row["x"]
    for figure in quick.document["figures"]:
        sizes = figure["settings"].get("sizes", {})
        assert all("stand-in for" in name for name in sizes if "-like" in name)


@pytest.mark.parametrize("share", fig5.QUICK.shares)
def test_fig5_lies_on_what_theory_says(quick: Run, share: int) -> None:
    """TSP is 2pN exactly; LSP's fills vary with the order of operations, its fences do not."""
    timeline = quick.results("fig5")[f"micro {share}"]
    assert timeline.missed_writes == 0
    assert {counts["illegal"] for counts in timeline.translations.values()} == {0}
    counts = timeline.after("measured")
    modifications = OPERATIONS * share // 100
    p = share / 100
    assert _exits(counts, "shadow") == 2 * modifications
    assert _exits(counts, "shadow", "pt_write") == modifications
    assert _exits(counts, "lsp", "fence_fast") == modifications
    # A load fills if the operation before it on its page was a modification.  Of N loads and
    # modifications in random order p(1-p) are such pairs, but none in the first pass, where the
    # warm-up's loads come before.  The pairs are nearly independent: four standard deviations.
    q = p * (1 - p)
    fills = (OPERATIONS - PAGES) * q
    assert abs(_exits(counts, "lsp", "shadow_fill") - fills) <= 4 * math.sqrt(OPERATIONS * q)
    assert _exits(counts, "ssp") == modifications
    if share:
        ratio = _exits(counts, "lsp") / _exits(counts, "shadow")
        error = (4 * math.sqrt(OPERATIONS * q) + PAGES * q) / (2 * modifications)
        assert ratio == pytest.approx(1 - p / 2, abs=error)


def test_fig5_rows_have_one_program(quick: Run) -> None:
    for percent in fig5.QUICK.shares:
        (row,) = quick.rows("fig5", share=percent / 100, policy="shadow")
        assert row["exits"] == row["expected"] == 2 * OPERATIONS * percent // 100


def test_fig5_is_the_same_through_gdb(quick: Run) -> None:
    """Stepped, gdb sees every access: all exits are the plugin's."""
    results = quick.results("fig5")
    plugin, gdb = (results[f"gdb-stepped {name}"].after("measured") for name in ("plugin", "gdb"))
    for model in ("shadow", "lsp"):
        assert _exits(plugin, model) > 50
        assert gdb.policies[model]["exits"] == plugin.policies[model]["exits"]


def test_mprotect_is_two_stores_and_a_fence(quick: Run) -> None:
    """The nearest Linux program: three exits a modification under TSP, one under LSP."""
    _, reads, _, modifications = quick.results("fig5")["linux"].between("begin", "end")
    count = fig5.QUICK.linux_operations
    # What else happens in the kernel: the timer; the pages themselves are filled before.
    assert _exits(reads, "shadow") < PAGES
    assert _exits(modifications, "shadow", "pt_write") == pytest.approx(2 * count, abs=20)
    assert _exits(modifications, "shadow", "fence") == pytest.approx(count, abs=20)
    assert _exits(modifications, "lsp") == pytest.approx(count, abs=60)
    assert modifications.fences["va_asid"] == pytest.approx(count, abs=20)
    (row,) = quick.rows("fig5-linux", series="lsp", x=1.0)
    assert row["y"] == _exits(modifications, "lsp")
    (figure,) = (one for one in quick.document["figures"] if one["figure"] == "fig5-linux")
    (saved,) = re.findall(r"saves up to (\d+\.\d)", figure["difference"])
    assert 60 < float(saved) < 70


def test_refs_saves_twelve(quick: Run) -> None:
    """Sv39: 15 references against 3, but for some misses of the guest's own, on larger pages."""
    for mode, nested, shadow in (("sv39", 15, 3), ("sv48", 24, 4), ("sv57", 35, 5)):
        rows = {row["policy"]: row for row in quick.rows("refs", mode=f"{mode} x {mode}x4")}
        per_miss = {policy: row["refs_per_miss"] for policy, row in rows.items()}
        assert rows["lsp"]["tlb_misses"] >= refs.QUICK.operations
        assert per_miss["nested"] == pytest.approx(nested, abs=0.1)
        assert per_miss["lsp"] == per_miss["shadow"] == pytest.approx(shadow, abs=0.02)
        assert per_miss["nested"] - per_miss["lsp"] == pytest.approx(nested - shadow, abs=0.1)


@pytest.mark.parametrize("program", fig7.QUICK)
def test_fig7_has_the_papers_direction(quick: Run, program: str) -> None:
    """Fewer exits than TSP; more TLB misses than nested paging, which TSP has too."""
    rows = {row["policy"]: row for row in quick.rows("fig7", program=program)}
    assert rows["nested"]["exits"] < rows["lsp"]["exits"] < rows["shadow"]["exits"]
    misses = {policy: row["tlb_misses"] for policy, row in rows.items()}
    assert misses["nested"] <= misses["shadow"] < misses["lsp"]


def test_fig6_batches_fences(quick: Run) -> None:
    """A window of w modifications has w fences by address, or one of everything."""
    results = quick.results("fig6")
    modifications = fig6.QUICK.operations * fig6.QUICK.share // 100
    for window in fig6.WINDOWS:
        by_address, of_all = (
            results[f"{window} {fence}"].after("measured") for fence in fig6.FENCES
        )
        assert _exits(by_address, "shadow") == 2 * modifications
        assert _exits(by_address, "lsp", "fence_fast") == modifications
        assert _exits(of_all, "shadow") == modifications + modifications // window
        # A fence of everything synchronises, so that no access fills.
        assert _exits(of_all, "lsp") == modifications // window
        changes = of_all.policies["lsp"]["sync_changes"]
        # Two modifications of a page in one window undo each other.
        assert changes == modifications if window == 1 else 0 < changes <= modifications
        assert window < 16 or changes < modifications


def test_beyond_varies_what_it_says(quick: Run) -> None:
    """A smaller TLB and a larger footprint miss more; without Svvptc the guest fences more."""
    results = quick.results("beyond")
    misses = [
        results[f"tlb {entries}"].after("begin").policies["lsp"]["tlb_misses"]
        for entries in beyond.QUICK_SECOND_LEVEL
    ]
    assert misses == sorted(misses, reverse=True)
    assert misses[0] > misses[-1]
    panel = "exit_footprint (stress-fork): first level"
    first = [row["y"] for row in quick.rows("beyond", panel=panel, series="shadow")]
    assert first == sorted(first)
    assert first[0] < first[-1]
    panel = "Svvptc, test sizes: fences that name an address"
    usual, without = (
        {row["x"]: row["y"] for row in quick.rows("beyond", panel=panel, series=series)}
        for series in ("with Svvptc", "without")
    )
    assert len(usual) == len(fig7.QUICK)
    assert all(usual[name] < without[name] for name in usual)
    for panel in (
        "Transparent huge pages: exits of shadow",
        "Transparent huge pages: exits of lsp",
        "Transparent huge pages: TLB misses of nested",
    ):
        assert len(quick.rows("beyond", panel=panel)) == 2 * len(beyond.HUGE)
    host = {
        row["x"]: row["y"]
        for row in quick.rows("beyond", panel="Host pages: TLB misses of LSP", series="4 KiB")
    }
    assert host["cc1 (403.gcc)"] < 1


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("fig5.py", [str(PAGES), str(OPERATIONS)], r"100% +8,000 +8,000 +4,000 +4,000"),
        ("fig6.py", [str(PAGES), str(OPERATIONS)], r"all +16 +425 +25 +\d"),
        ("refs.py", [str(refs.QUICK.operations)], r"sv57 +lsp +(4\.9|5\.0)"),
        ("fig7.py", ["mcf-like"], r"mcf-like \(stand-in for 429\.mcf\) +1\.\d+ +0\.\d+"),
    ],
)
def test_scripts(quick: Run, script: str, arguments: list[str], expected: str) -> None:
    """The scripts that document the API run as they stand, and find what the command measured."""
    command = [sys.executable, str(SOURCE / "scripts" / script), str(quick.folder), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert re.search(expected, ran.stdout), ran.stdout
