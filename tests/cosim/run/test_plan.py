"""What a request becomes before QEMU starts: the guest's command line, and what it cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosim.errors import UsageError
from cosim.run import plan
from cosim.run.names import IN_FILE
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb

OWN = "console=ttyS0 panic=-1"


def spec(workload: str | None = None, append: str | None = None) -> RunSpec:
    return RunSpec(name="test", backend=Gdb(), guest="linux", workload=workload, append=append)


def test_a_workload_is_quoted_for_linux_and_alone_for_a_bare_guest() -> None:
    assert plan._command_line(spec("echo a; ls", "quiet"), OWN) == (
        f'{OWN} cosim.run="echo a; ls" quiet'
    )
    assert plan._command_line(spec("scenario=map"), "scenario=all") == "scenario=map"
    assert plan._command_line(spec(), OWN) == OWN


def test_a_workload_with_a_quote_is_refused() -> None:
    with pytest.raises(UsageError, match='--workload cannot contain a "') as refused:
        plan._command_line(spec('echo "hello  world"'), OWN)
    assert "\n" not in str(refused.value)
    plan._command_line(spec("echo 'hello  world'"), OWN)


def test_a_command_line_that_the_kernel_would_cut_is_refused() -> None:
    plan._check_fits("a" * 1023, spec("a"))
    with pytest.raises(UsageError, match=r"--workload makes .* 1024 bytes long; .* at most 1023"):
        plan._check_fits("a" * 1024, spec("a"))
    with pytest.raises(UsageError, match=r"--append makes .* 1026 bytes"):
        plan._check_fits("\u00e9" * 513, spec(append="a"))


def test_messages_name_the_key_of_a_run_file() -> None:
    with pytest.raises(UsageError, match=r"^append makes the guest's command line 1024 bytes"):
        plan._check_fits("a" * 1024, replace(spec(append="a"), names=IN_FILE))
