"""The paper's experiments on real guests, at small sizes: their shapes, and the command."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

import guest
from cosim.paths import SOURCE
from cosim.reproduce import Counts, Lab, Measurement, fig5, fig6, fig7, micro, refs
from cosim.runspec import RunSpec

pytestmark = pytest.mark.system

_COSIM = "from cosim.cli import main; main()"

PAGES, OPERATIONS = 64, 4000
BASE = {"setup": "base"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    for name in ("micro", "workloads"):
        guest.ensure(name, lambda *_: None)
    return Lab(tmp_path_factory.mktemp("lab"))


def _exits(counts: Counts, model: str, *kinds: str) -> int:
    number = counts.exits(model, *kinds)
    assert number is not None
    return number


def _micro(lab: Lab, share: int, **options: object) -> Counts:
    words = {"pages": PAGES, "ops": OPERATIONS, "share": share, **options}
    measurement = Measurement(micro(f"micro-{share}", words), fig5.MODELS, BASE)
    timeline = lab.measure(measurement)
    assert timeline.missed_writes == 0
    assert {counts["illegal"] for counts in timeline.translations.values()} == {0}
    return timeline.after("measured")


@pytest.mark.parametrize("share", [0, 25, 60, 100])
def test_fig5_lies_on_what_theory_says(lab: Lab, share: int) -> None:
    """TSP is 2pN exactly; LSP's fills vary with the order of operations, its fences do not."""
    counts = _micro(lab, share)
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


def test_fig5_is_the_same_through_gdb(lab: Lab) -> None:
    """Stepped, gdb sees every access: all exits are the plugin's."""
    options = {"pages": 8, "ops": 60, "share": 50}
    plugin = Measurement(micro("plugin", options), ("shadow", "lsp"), BASE)
    gdb = Measurement(micro("gdb", options, backend="mi"), ("shadow", "lsp"), BASE, step_all=True)
    through_plugin = lab.measure(plugin).after("measured")
    through_gdb = lab.measure(gdb).after("measured")
    for model in ("shadow", "lsp"):
        assert _exits(through_plugin, model) > 30
        assert through_gdb.policies[model]["exits"] == through_plugin.policies[model]["exits"]


def test_mprotect_is_two_stores_and_a_fence(lab: Lab) -> None:
    """The nearest Linux program: three exits a modification under TSP, one under LSP."""
    spec = RunSpec(
        name="mprotect",
        guest="workloads",
        workload="mprotect-bench:test 64 1000 0 1; mprotect-bench:test 64 1000 100 1",
        region_from="mark:begin",
        region_to="mark:done",
        backend="plugin",
        time_limit=100,
    )
    timeline = lab.measure(Measurement(spec, ("shadow", "lsp"), BASE))
    reads, modifications = timeline.between("begin", "end")
    # What else happens in the kernel: first fills, the timer.
    assert _exits(reads, "shadow") < 200
    assert _exits(modifications, "shadow", "pt_write") == pytest.approx(2000, abs=20)
    assert _exits(modifications, "shadow", "fence") == pytest.approx(1000, abs=20)
    assert _exits(modifications, "lsp") == pytest.approx(1000, abs=60)
    assert modifications.fences["va_asid"] == pytest.approx(1000, abs=20)


def test_refs_saves_twelve(lab: Lab) -> None:
    """Sv39: 15 references against 3, but for some misses of the guest's own, on larger pages."""
    results = {
        name: lab.measure(measurement)
        for name, measurement in refs.plan(quick=True).items()
        if name in ("sv39 sv39", "sv48 sv48")
    }
    for name, nested, shadow in (("sv39 sv39", 15, 3), ("sv48 sv48", 24, 4)):
        counts = results[name].after("measured")
        per_miss = {
            model: sum(policy["walk_refs"].values()) / policy["tlb_misses"]
            for model, policy in counts.policies.items()
        }
        assert counts.policies["lsp"]["tlb_misses"] >= refs.QUICK.operations
        assert per_miss["nested"] == pytest.approx(nested, abs=0.1)
        assert per_miss["lsp"] == per_miss["shadow"] == pytest.approx(shadow, abs=0.02)
        assert per_miss["nested"] - per_miss["lsp"] == pytest.approx(nested - shadow, abs=0.1)


def test_fig7_has_the_papers_direction(lab: Lab) -> None:
    """Fewer exits than TSP; more TLB misses than nested paging, which TSP has too."""
    run = "sqlite3:test; mcf-like:test 4000 20000 2 1"
    spec = RunSpec(
        name="two",
        guest="workloads",
        workload=run,
        region_from="mark:begin",
        region_to="mark:done",
        backend="plugin",
        time_limit=100,
    )
    timeline = lab.measure(Measurement(spec, ("nested", "shadow", "lsp"), fig7.MACHINE))
    assert {counts["illegal"] for counts in timeline.translations.values()} == {0}
    for counts in timeline.between("begin", "end"):
        assert _exits(counts, "nested") < _exits(counts, "lsp") < 0.75 * _exits(counts, "shadow")
        misses = {model: policy["tlb_misses"] for model, policy in counts.policies.items()}
        assert misses["nested"] <= misses["shadow"] < misses["lsp"]


def test_fig6_batches_fences(lab: Lab) -> None:
    """A window of w modifications has w fences by address, or one of everything."""
    plan = fig6.plan(quick=True)
    modifications = fig6.QUICK.operations * fig6.QUICK.share // 100
    for window in (1, 16):
        by_address, of_all = (
            lab.measure(plan[f"{window} {fence}"]).after("measured") for fence in ("va", "all")
        )
        assert _exits(by_address, "shadow") == 2 * modifications
        assert _exits(by_address, "lsp", "fence_fast") == modifications
        assert _exits(of_all, "shadow") == modifications + modifications // window
        # A fence of everything synchronises, so that no access fills.
        assert _exits(of_all, "lsp") == modifications // window
        changes = of_all.policies["lsp"]["sync_changes"]
        # Two modifications of a page in one window undo each other.
        assert changes == modifications if window == 1 else 0 < changes < modifications


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("refs.py", [], r"sv57 +lsp +(4\.9|5\.0)"),
        ("fig7.py", ["mcf-like"], r"mcf-like +1\.\d+ +0\.\d+"),
    ],
)
def test_scripts(script: str, arguments: list[str], expected: str, tmp_path: Path) -> None:
    """The scripts that document the API run as they stand."""
    command = [sys.executable, str(SOURCE / "scripts" / script), str(tmp_path), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert re.search(expected, ran.stdout), ran.stdout


def test_the_command_leaves_data_and_page_and_resumes(tmp_path: Path) -> None:
    """JSON, CSV and page; the second time nothing is measured."""
    command = [sys.executable, "-c", _COSIM, "reproduce", "refs", "-o", str(tmp_path)]
    command += ["--quick", "--json"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    (figure,) = document["figures"]
    assert json.loads((tmp_path / "refs.json").read_text()) == figure
    assert len((tmp_path / "refs.csv").read_text().splitlines()) == len(figure["rows"]) + 1
    page = (tmp_path / "index.html").read_text()
    assert figure["title"] in page
    assert "none illegal" in page

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")}
    assert len(before) > 5
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(again.stdout) == document
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*")} == before
