"""The main job: `cosim run linux` as a user types it, and with stepping through gdb alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

MODELS = ("native", "nested", "shadow", "lsp")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "linux")


def test_the_table_of_the_main_job(home: Home) -> None:
    ended = run(["run", "linux"], home.environment())
    assert ended.status == 0 and ended.stderr == ""
    lines = ended.stdout.split("\n")
    assert max(map(len, lines)) <= 100
    text = " ".join(ended.stdout.split())
    assert text.startswith("linux, from mark:init to power-off: ")
    assert " none illegal; " in text and " 0 missed." in text
    for name in MODELS:
        assert name in text
    assert home.leftovers() == [] and home.sessions() == []


def test_stepping_counts_what_it_sees(home: Home) -> None:
    words = ["run", "linux", "--backend", "gdb", "--step", "3", "--json"]
    words += ["--workload", "busybox true"]
    ended = run(words, home.environment())
    assert ended.status == 0, ended.stderr
    document = ended.document
    assert document["accesses"] == "partial"
    assert 0 < document["stepped"]["share"] < 1
    assert document["events"]["access"] > document["stepped"]["instructions"] > 100
    assert document["audit"]["missed_writes"] == 0
    for name in MODELS:
        policy = document["policies"][name]
        assert policy["tlb_misses"] > 0 and policy["walk_refs"]["vs"] > 0
        assert "stepped" in policy["reasons"]["tlb_misses"]
        answers = document["translations"][name]
        assert answers["compared"] > 1000 and answers["illegal"] == 0
    lsp = document["policies"]["lsp"]["exits"]
    assert lsp["shadow_fill"] > 0 and lsp["total"] is None
    assert lsp["at_least"] >= lsp["shadow_fill"] + lsp["fence_fast"]


def test_a_guest_that_sleeps_is_followed(home: Home) -> None:
    """The page of `dump_stack` also holds a `wfi`, at which an idle hart waits."""
    words = ["run", "linux", "--backend", "gdb", "--model", "native", "--json"]
    words += ["--workload", "cosim-mark a; sleep 1", "--from", "mark:a", "--to", "dump_stack"]
    ended = run(words, home.environment())
    # It is never called, so the guest goes on to its end.
    assert ended.status == 3
    assert "the guest powered off before the region's end (--to dump_stack)" in ended.line
    assert ended.document["events"]["fence"]["va_asid"] > 0
    assert ended.document["audit"]["missed_writes"] == 0


def test_a_fetch_that_faults_is_stepped(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    words = ["run", "micro", "--workload", "scenario=fault,user", "--step-all", "--json"]
    ended = run(words, home.environment())
    assert ended.status == 0, ended.stderr
    assert ended.document["events"]["page_fault"] > 0
    assert ended.document["translations"]["reference"]["illegal"] == 0
