"""How a workload ended, told from the guest's console."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.session import workload


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ("cosim: done, exit status 127\r\n[    0.87] reboot: Power down\r\n", 127),
        ("cosim: done, exit status 0\r\n", None),
        ("cosim: done, exit status 3\ncosim: done, exit status 0\n", None),
        ("x\n" * 100_000 + "cosim: done, exit status 1\n", 1),
        ("echo cosim: done, exit status 1\n", None),
        ("", None),
    ],
)
def test_the_console_tells_how_the_workload_ended(
    tmp_path: Path, printed: str, status: int | None
) -> None:
    log = tmp_path / "record.console.log"
    log.write_text(printed)
    failure = workload.failure(tmp_path)
    if status is None:
        assert failure is None
    else:
        assert failure == f"the workload ended with exit status {status} (console: {log})"


def test_no_console_tells_nothing(tmp_path: Path) -> None:
    assert workload.failure(tmp_path) is None
