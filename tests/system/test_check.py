"""``cosim check`` on real guests: every seeded bug is found, and no repaired twin is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mutate_fences import NO_ACCESS, NOTHING, NOTICED, mutate

import guest
from cosim.cli import cosim
from guest.micro.scenarios import Scenario, scenarios
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

CHECKED = [one for one in scenarios() if one.name != "lsp-bench" and one.harts == 1]


@pytest.fixture(autouse=True)
def _micro() -> None:
    guest.ensure("micro", lambda *_: None)


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = cosim.main(["check", *words, "--json"], standalone_mode=False)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


@pytest.mark.parametrize("scenario", CHECKED, ids=lambda one: str(one.name))
def test_seeded_bugs_are_found_and_nothing_else(
    capsys: pytest.CaptureFixture[str], scenario: Scenario
) -> None:
    status, found = check(capsys, "micro", "--scenario", scenario.name)
    assert found["complete"]
    assert found["checked"]["accesses"] > 50
    assert found["checked"]["undecided"] == 0
    kinds = {row["kind"] for row in found["findings"]}
    if scenario.seeded_bug is None:
        assert (status, kinds) == (0, set())
    else:
        assert status == 1
        assert scenario.seeded_bug in kinds
    if scenario.name.startswith("bug-"):
        (row,) = found["findings"]
        # The store is in the function of the bug, not in what it calls.
        assert row["store_source"].startswith("bugs.c:")
        assert row["store_symbol"] is not None and row["va"] >> 30 >= 36
        _check_call_chain(row, scenario.name)


@pytest.mark.parametrize(
    "scenario", [one for one in scenarios() if one.harts > 1], ids=lambda one: str(one.name)
)
def test_a_fence_on_the_wrong_hart_is_found(
    capsys: pytest.CaptureFixture[str], scenario: Scenario
) -> None:
    status, found = check(
        capsys, "micro", "--scenario", scenario.name, "--smp", str(scenario.harts)
    )
    assert found["complete"] and found["checked"]["undecided"] == 0
    rows = found["findings"]
    assert [row["kind"] for row in rows] == [scenario.seeded_bug] * bool(scenario.seeded_bug)
    assert status == len(rows)
    for row in rows:
        assert row["store_source"].startswith("harts.c:")
        assert row["access"]["hart"] != row["store"]["hart"] == row["fence"]["executed"]["hart"]
        assert row["fence"]["verdict"] == "other-hart"
        assert "cannot be repeated" in row["call_chain_reason"]


def _check_call_chain(row: dict[str, Any], scenario: str) -> None:
    """It leads from the store to the function of the scenario, and to the kernel's entry."""
    names = [str(frame["symbol"]).partition("+")[0] for frame in row["call_chain"]]
    assert row["call_chain"][0]["pc"] == row["store_pc"]
    assert f"run_{scenario.replace('-', '_')}" in names, names
    assert names[-2:] == ["kernel_main", "_start"]


@pytest.mark.parametrize("mode", ["sv48", "sv57"])
def test_bugs_are_found_in_every_mode(capsys: pytest.CaptureFixture[str], mode: str) -> None:
    names = [one.name for one in CHECKED if one.name.startswith("bug-")]
    status, found = check(capsys, "micro", "--workload", f"scenario={','.join(names)} mode={mode}")
    wanted = sorted(str(one.seeded_bug) for one in CHECKED if one.name.startswith("bug-"))
    assert status == 1
    assert sorted(row["kind"] for row in found["findings"]) == wanted


def test_a_trace_gives_what_the_run_gave(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    workload = "scenario=bug-order,bug-free,forgotten"
    folder = tmp_path / "trace"
    words = ["capture", "micro", "--workload", workload, "--filter", "1", "-o", str(folder)]
    assert cosim.main(words, standalone_mode=False) == 0
    live = check(capsys, "micro", "--workload", workload)
    again = check(capsys, str(folder))
    assert len(again[1]["findings"]) == 4
    for one, other in zip(live[1]["findings"], again[1]["findings"], strict=True):
        # A trace has no guest to ask.
        assert len(one.pop("call_chain")) > 2
        assert other.pop("call_chain") is None and other.pop("call_chain_reason")
    assert live == again


def test_the_command_ends_with_1_writes_files_and_a_suppression_makes_it_0(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    words: list[str | Path] = ["check", "micro", "--scenario", "bug-unmap"]
    sarif, junit = tmp_path / "a.sarif", tmp_path / "a.xml"
    ended = run([*words, "--sarif", sarif, "--junit", junit], home.environment())
    assert ended.status == 1, ended.stderr
    assert "permission-lost" in ended.stdout and "unmap" in ended.stdout
    last = ended.stdout.splitlines()[-1]
    assert last == "  cosim debug micro --scenario bug-unmap --at finding"
    assert "permission-lost" in sarif.read_text() and "permission-lost" in junit.read_text()
    assert home.leftovers() == []
    known = tmp_path / "known.toml"
    known.write_text('[[suppress]]\nstore = "unmap"\nreason = "a test"\n')
    ended = run([*words, "--suppress", known], home.environment())
    assert ended.status == 0, ended.stdout
    assert "Suppressed: permission-lost at unmap" in ended.stdout


def test_the_checker_misses_each_fence_that_something_depends_on(tmp_path: Path) -> None:
    """Per page of `protect`: mapped (Svvptc: nothing owed), W lost and X lost.

    A store is tried after W is lost, so that fence is missed; nobody fetches after X is lost.
    """
    folder = tmp_path / "trace"
    words = ["capture", "micro", "--workload", "scenario=protect", "--filter", "1"]
    assert cosim.main([*words, "-o", str(folder)], standalone_mode=False) == 0
    result = mutate(folder, every=1)
    assert result["hazards_before"] == 0
    counts = {row["outcome"]: row["fences"] for row in result["outcomes"]}
    assert counts == {NOTICED: 16, NO_ACCESS: 16, NOTHING: 16}


def test_linux_owes_no_fence(capsys: pytest.CaptureFixture[str]) -> None:
    guest.ensure("linux", lambda *_: None)
    status, found = check(capsys, "linux")
    assert (status, found["findings"]) == (0, [])
    assert found["checked"]["accesses"] > 1_000_000
