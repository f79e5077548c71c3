"""Each access of a guest, stepped from end to end by gdb: the plugin sees the same at speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.two_sources import assert_equal, step_through

pytestmark = [pytest.mark.system, pytest.mark.long]


@pytest.mark.parametrize(
    "scenario",
    ["protect", "global", "bare", "stores", "cbo-zero", "misaligned", "svinval", "fault", "user"],
)
def test_every_access_of_micro(scenario: str, tmp_path: Path) -> None:
    """No event is left out, neither a fetch nor a fault."""
    assert_equal(*step_through(scenario, tmp_path))
