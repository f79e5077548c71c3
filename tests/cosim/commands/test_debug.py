"""What `cosim debug` refuses before it starts a guest."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.parametrize("option", ["--share", "--disk-write"])
def test_what_cannot_run_again_is_refused(option: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    words = {"--share": ["--share", str(tmp_path)], "--disk-write": ["--disk-write"]}[option]
    with pytest.raises(UsageError) as refused:
        command = ["debug", "micro", "--disk", str(tmp_path / "disk"), *words]
        CliRunner().invoke(cosim, command, catch_exceptions=False)
    line = str(refused.value)
    assert line.startswith(f"{option}: cosim debug goes back in a recording, which ")
    assert line.endswith("; leave it out")
