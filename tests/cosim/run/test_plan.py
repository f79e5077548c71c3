"""What a request becomes before QEMU starts: the guest's command line, and what it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.errors import UsageError
from cosim.run import plan
from cosim.run.spec import RunSpec
from cosim.session import execute as launch

OWN = "console=ttyS0 panic=-1"


def spec(workload: str | None = None, append: str | None = None) -> RunSpec:
    return RunSpec(name="test", guest="linux", workload=workload, append=append)


def test_a_workload_is_quoted_for_linux_and_alone_for_a_bare_guest() -> None:
    assert plan._command_line(spec("echo a; ls", "quiet"), OWN) == (
        f'{OWN} cosim.run="echo a; ls" quiet'
    )
    assert plan._command_line(spec("scenario=map"), "scenario=all") == "scenario=map"
    assert plan._command_line(spec(), OWN) == OWN


def test_a_workload_with_a_quote_is_refused() -> None:
    with pytest.raises(UsageError, match='--workload cannot have a "') as refused:
        plan._command_line(spec('echo "hello  world"'), OWN)
    assert "\n" not in str(refused.value)
    plan._command_line(spec("echo 'hello  world'"), OWN)


def test_a_command_line_that_the_kernel_would_cut_is_refused() -> None:
    plan._check_fits("a" * 1023, spec("a"))
    with pytest.raises(UsageError, match=r"--workload makes .* 1024 bytes long, .* takes 1023"):
        plan._check_fits("a" * 1024, spec("a"))
    with pytest.raises(UsageError, match=r"--append makes .* 1026 bytes"):
        plan._check_fits("\u00e9" * 513, spec(append="a"))


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
    failure = launch.workload_failure(tmp_path)
    if status is None:
        assert failure is None
    else:
        assert failure == f"the workload ended with exit status {status} (console: {log})"


def test_no_console_tells_nothing(tmp_path: Path) -> None:
    assert launch.workload_failure(tmp_path) is None
