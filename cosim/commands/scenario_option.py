"""The option ``--scenario``, which names what the guest ``micro`` runs."""

from __future__ import annotations

from typing import Any

import click

from cosim.errors import UsageError

scenario_option = click.option(
    "--scenario", metavar="NAME", help="Which scenario the guest micro runs."
)


def take_scenario(scenario: str | None, guest: str | None, given: dict[str, Any]) -> None:
    """Make ``--scenario`` the workload in ``given``; change nothing if it was not given.

    :raises UsageError: when the guest has no scenarios or not this one, or a workload is given too.
    """
    from guest.micro import scenarios

    if scenario is None:
        return
    if guest not in scenarios.GUESTS:
        raise UsageError("--scenario works only with the guests micro and micro-m")
    if given.get("workload") is not None:
        raise UsageError("--scenario and --workload exclude each other")
    wrong = scenarios.problem(scenario)
    if wrong is not None:
        raise UsageError(f"--scenario: {wrong}")
    given["workload"] = f"scenario={scenario}"
