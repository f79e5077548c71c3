"""What `cosim debug` refuses before it starts a guest."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import UsageError


def test_several_harts_are_refused_with_the_reason() -> None:
    with pytest.raises(UsageError) as refused:
        CliRunner().invoke(cosim, ["debug", "micro", "--smp", "2"], catch_exceptions=False)
    line = str(refused.value)
    assert line.startswith("--smp: cosim debug goes back in a recording")
    assert "cosim run --smp N --gdb SOCKET" in line
