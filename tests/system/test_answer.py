"""The answer as a user sees it: the first lines of a run, its JSON, and text from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

MICRO = ["run", "micro", "--backend", "plugin"]
BENCH = ["--workload", "scenario=lsp-bench pages=64 ops=500 share=50"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "micro")


def test_the_first_lines_of_a_run(home: Home) -> None:
    ended = run([*MICRO, *BENCH], {**home.environment(), "COLUMNS": "80"})
    assert (ended.status, ended.stderr) == (0, "")
    words = " ".join(ended.stdout.replace("\u00a0", " ").split())
    document = run([*MICRO, *BENCH, "--json"], home.environment()).document
    exits = {name: policy["exits"]["total"] for name, policy in document["policies"].items()}
    instructions = document["region"]["instructions"]
    assert words.startswith(
        f"micro, from mark:begin to mark:end: {instructions:,} instructions, 250 table stores, 250"
        f" fences and 0 satp writes. Against the {exits['shadow']:,} exits of shadow, nested takes "
    )
    assert "By the cost table `default` (1,000 cycles for an exit" in words
    compared = sum(party["compared"] for party in document["translations"].values())
    assert words.endswith(f"Checked: {compared:,} translations compared, none illegal; 0 missed.")
    # One exit for each store and each fence, and the fills: by hand.
    assert exits["shadow"] == 500 + document["policies"]["shadow"]["exits"]["shadow_fill"]
    profile = document["profile"]
    causes = profile["causes"]
    assert causes["functions"][0]["function"] == "run_bench"
    # Half of the steps store to a table and fence it: one instruction each.
    sites = {row["event"]: row for row in causes["sites"] if row["exits"]["shadow"] == 250}
    assert {"pte_write", "fence"} <= set(sites)
    assert all(row["site"].startswith("run_bench+0x") for row in sites.values())
    assert profile["over_time"]["marks"][0] == {"at": 0, "label": "begin"}
    for name, total in exits.items():
        assert sum(profile["over_time"]["exits"][name]) == total
        for rows in causes.values():
            assert sum(row["exits"][name] for row in rows) == total
            misses = sum(row["misses"][name] for row in rows)
            assert misses == document["policies"][name]["tlb_misses"]


def test_every_counter_is_behind_an_option(home: Home) -> None:
    ended = run([*MICRO, *BENCH, "--verbose"], home.environment())
    assert ended.status == 0
    for counter in ("pt_write", "walk_refs vs", "tlb_displaced", "stale-legal", "gstage_page"):
        assert counter in ended.stdout


@pytest.mark.parametrize("pattern", ["[/~] # ", "[a-z]+ never", "[/x]\x1b]0;owned\x07"])
def test_a_pattern_is_no_markup(pattern: str, home: Home) -> None:
    """The region begins, and its end is never printed: the error and the result name it."""
    words = [*MICRO, "--from", "boot", "--to", f"console:{pattern}"]
    ended = run(words, home.environment())
    shown = pattern.replace("\x1b", "\\x1b").replace("\x07", "\\x07")
    assert ended.status == 3
    assert "Traceback" not in ended.stderr and "\x1b" not in ended.stderr + ended.stdout
    assert shown in ended.stderr
    assert f"micro, from boot to console:{shown}: " in " ".join(ended.stdout.split())
