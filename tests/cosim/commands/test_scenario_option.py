"""Scenarios of ``micro`` that do not exist are refused before the guest starts, with the list."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.commands.scenario_option import take_scenario
from cosim.errors import UsageError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "micro", "--scenario", "map,typo"], "--scenario: "),
        (["debug", "micro-m", "--scenario", "typo"], "--scenario: "),
        (
            ["run", "micro", "--workload", "mode=sv48 scenario=map,typo"],
            "--workload scenario=map,typo: ",
        ),
        (["capture", "micro-m", "--workload", "scenario=typo"], "--workload scenario=typo: "),
        (["check", "micro", "--workload", "scenario=typo"], "--workload scenario=typo: "),
    ],
)
def test_a_scenario_that_does_not_exist_is_refused(words: list[str], says: str) -> None:
    output = ["-o", "nowhere"] if words[0] == "capture" else []
    refused = CliRunner().invoke(cosim, [*words, *output]).exception
    assert isinstance(refused, UsageError)
    assert str(refused).startswith(f"{says}there is no 'typo'; scenarios: all, map, protect, ")


def test_a_scenario_becomes_the_workload() -> None:
    given: dict[str, object] = {"workload": None}
    take_scenario(None, "linux", given)
    assert given == {"workload": None}
    take_scenario("all,bug-unmap,lsp-bench", "micro", given)
    assert given == {"workload": "scenario=all,bug-unmap,lsp-bench"}
