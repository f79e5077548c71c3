"""The option ``--scenario`` of commands that run ``micro``."""

from __future__ import annotations

from typing import Any

from cosim.errors import UsageError


def add_workload(guest: str | None, scenario: str | None, given: dict[str, Any]) -> None:
    """Put the workload that ``--scenario`` stands for into ``given``, if it was given.

    :raises UsageError: when the guest has no scenarios, or not this one, or there is a workload.
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
