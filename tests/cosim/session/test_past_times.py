"""What is remembered of how long runs took."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosim.kernel.images import KernelImage
from cosim.kernel.symbols import Symbols
from cosim.machine.configuration import MachineConfig
from cosim.machine.tools import Tool
from cosim.run.names import COMMAND_LINE
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session import past_times
from cosim.session.backends.both import Both
from cosim.session.backends.gdb import Gdb
from cosim.session.past_times import PastTimes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "past-times.json"


def _plan() -> Plan:
    kernel = Path("kernel")
    return Plan(
        name="run",
        machine=MachineConfig(kernel=kernel, append="ls"),
        kernel=kernel,
        image=KernelImage(kernel, "elf", 0, ()),
        symbols=Symbols(np.empty(0, np.uint64), []),
        qemu=Tool(Path("qemu"), (10, 0, 0), "10"),
        begin=Edge("boot", "boot"),
        end=Edge("power-off", "power-off"),
        mark_at=0,
        backend=Both(),
        console=(),
        models=(),
        modelled={},
        stop_on_divergence=False,
        live=False,
        time_limit=None,
        versions={},
        cpu_properties={},
        names=COMMAND_LINE,
    )


def test_the_same_run_is_found_again_and_another_is_not(file: Path) -> None:
    plan = _plan()
    assert PastTimes(plan).last("recording") is None
    PastTimes(plan).keep("recording", 9.0)
    PastTimes(plan).keep("recording", 8.123)
    PastTimes(plan).keep("region", 4.0)
    again = PastTimes(_plan())
    assert (again.last("recording"), again.last("region")) == (8.12, 4.0)
    others = (
        replace(plan, machine=replace(plan.machine, append="ls -lR /")),
        replace(plan, end=Edge("mark", "mark:end", label="end")),
        replace(plan, backend=Gdb()),
        replace(plan, backend=Both(filter=1)),
    )
    for other in others:
        assert PastTimes(other).last("recording") is None


def test_what_is_left_is_what_the_last_run_needed_less_what_has_passed(file: Path) -> None:
    assert PastTimes(_plan()).left("recording", 1.0) == (None, "no earlier run to estimate from")
    PastTimes(_plan()).keep("recording", 8.0)
    past = PastTimes(_plan())
    assert past.left("recording", 2.0) == (6.0, "")
    assert past.left("recording", 8.5) == (None, "the last time it took 8 s")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "7", "\xff", '{"KEY": 3}', '{"KEY": {"recording": "8"}}'),
        *('{"KEY": {"recording": -1}}', '{"KEY": {"recording": NaN}}', "[" * 100_000),
        '{"KEY": {"recording": true}}',
    ],
)
def test_a_damaged_file_is_no_help_and_no_fault(text: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(text.replace("KEY", past_times._key(_plan())), encoding="latin-1")
    past = PastTimes(_plan())
    assert past.left("recording", 1.0)[0] is None
    past.keep("recording", 5.0)
    assert past.last("recording") == 5.0


def test_the_oldest_runs_make_room(file: Path) -> None:
    file.parent.mkdir()
    old = {f"{number:016x}": {"recording": 1.0} for number in range(past_times._MOST_RUNS)}
    file.write_text(json.dumps(old))
    PastTimes(_plan()).keep("recording", 5.0)
    kept = json.loads(file.read_text())
    assert len(kept) == past_times._MOST_RUNS
    assert f"{0:016x}" not in kept and f"{1:016x}" in kept
    assert file.stat().st_size < past_times._MOST_BYTES / 2


def test_a_folder_that_cannot_be_written_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "file" / "cache"))
    PastTimes(_plan()).keep("recording", 5.0)
    assert PastTimes(_plan()).last("recording") is None


def test_a_user_without_a_home_gets_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COSIM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    PastTimes(_plan()).keep("recording", 5.0)
    assert PastTimes(_plan()).last("recording") is None
