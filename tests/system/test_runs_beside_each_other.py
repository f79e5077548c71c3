"""Run files with --jobs: the same traces, each run alone in its failure, and no process left."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim.trace.reader import TraceReader, verify
from hypervisor_model.events import EventBatch
from tests.system.cosim_process import Command, Home, run

pytestmark = pytest.mark.system

HEAD = 'guest = "micro"\nmodels = ["native"]\n'
SHORT = """
[[run]]
name = "map"
workload = "scenario=map"
[[run]]
name = "never"
from = "mark:nowhere"
[[run]]
name = "lsp"
workload = "scenario=lsp-bench pages=16 ops=60 share=50"
[[run]]
name = "asid"
workload = "scenario=asid"
"""
LONG = "scenario=lsp-bench pages=64 ops=16000000 share=50"
"""It goes on for longer than the tests need."""
QUICK = "scenario=map"
NAMES = ["map", "never", "lsp", "asid"]


def events(trace: Path) -> EventBatch:
    """All events of a trace."""
    assert verify(trace) == []
    return np.concatenate(list(TraceReader(trace).batches()))


def state(output: Path, name: str) -> Any:
    """What the file of a run says of it; None if there is none."""
    try:
        return json.loads((output / name / "run.json").read_text())["status"]
    except FileNotFoundError:
        return None


def test_captures_beside_each_other_give_the_same_traces(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    file = tmp_path / "runs.toml"
    file.write_text(HEAD + SHORT)
    ended = {
        jobs: run(
            ["capture", file, "-o", tmp_path / jobs, "--json", "--jobs", jobs], home.environment()
        )
        for jobs in ("1", "2")
    }
    for jobs, one in ended.items():
        assert one.status == 3, one.stderr
        said = one.document["runs"]
        assert [(there["name"], there["status"]) for there in said] == [
            (name, "failed" if name == "never" else "done") for name in NAMES
        ]
        assert "mark:nowhere" in said[1]["error"]
        lines = one.stderr.splitlines()
        assert [line.split()[0] for line in lines] == [f"[{k}/4]" for k in range(1, 5)]
        assert sorted(line.split()[1] for line in lines) == sorted(f"{name}:" for name in NAMES)
        assert not (tmp_path / jobs / "never" / "result.json").exists()
    for name in ("map", "lsp", "asid"):
        alone, beside = (events(tmp_path / jobs / name / "trace") for jobs in ("1", "2"))
        assert len(alone) > 20
        assert np.array_equal(alone, beside)
        alone, beside = (
            json.loads((tmp_path / jobs / name / "result.json").read_text()) for jobs in ("1", "2")
        )
        assert alone == beside
    assert home.leftovers() == []


def begin(home: Home, tmp_path: Path) -> tuple[Path, Path, list[str | Path]]:
    """Return a file of one quick run and two that go on for long, its results, and the command."""
    file, output = tmp_path / "runs.toml", tmp_path / "out"
    file.write_text(
        f'{HEAD}[[run]]\nname = "quick"\nworkload = "{QUICK}"\n'
        + "".join(f'[[run]]\nname = "{name}"\nworkload = "{LONG}"\n' for name in "ab")
    )
    return file, output, ["capture", file, "-o", output, "--jobs", "2"]


def qemus(command: Command) -> list[int]:
    """The processes of QEMU that belong to ``command``."""
    found = []
    for pid in command.living():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"micro.elf" in line and b"-plugin" in line:
            found.append(pid)
    return found


def both_go_on(command: Command, output: Path) -> bool:
    """Return True if the quick run is done, and the guests of both others run."""
    return state(output, "quick") == "done" and len(qemus(command)) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_runs_and_keeps_what_is_finished(
    tmp_path: Path, number: signal.Signals
) -> None:
    home = Home(tmp_path / "home", "micro")
    _, output, words = begin(home, tmp_path)
    with Command(words, home.environment()) as command:
        command.until(lambda: both_go_on(command, output), "two runs that go on")
        second = run(words, home.environment())
        assert (second.status, second.line) == (
            2,
            f"{output}: another cosim process is doing runs there",
        )
        command.send(number)
        ended = command.end()
    assert ended.status == 130
    assert ended.stderr.splitlines()[-1] == "cosim: interrupted"
    assert "Traceback" not in ended.stderr
    assert [state(output, name) for name in ("quick", "a", "b")] == ["done", "running", "running"]
    assert home.leftovers() == []


def test_a_command_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    file, output, words = begin(home, tmp_path)
    with Command(words, home.environment()) as command:
        command.until(lambda: both_go_on(command, output), "two runs that go on")
        # The command, a process for each run, and the emulators.
        assert len(command.living()) >= 5
        command.send(signal.SIGKILL)
        assert command.process.wait() == -signal.SIGKILL
        command.assert_gone()
    assert [state(output, name) for name in ("quick", "a", "b")] == ["done", "running", "running"]
    file.write_text(file.read_text().replace(LONG, QUICK))
    rest = run([*words, "--json"], home.environment())
    assert rest.status == 0, rest.stderr
    assert [one["earlier"] for one in rest.document["runs"]] == [True, False, False]
    assert verify(output / "a" / "trace") == []


def test_two_runs_need_a_guest_that_is_not_made_yet(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (home.cache / "guests").unlink()
    file = tmp_path / "runs.toml"
    runs = "".join(f'[[run]]\nname = "{name}"\n' for name in "ab")
    file.write_text(f'{HEAD}workload = "{QUICK}"\n{runs}')
    ended = run(["capture", file, "-o", tmp_path / "out", "--jobs", "2"], home.environment())
    assert ended.status == 0, ended.stderr
    kernels = {
        json.loads((tmp_path / "out" / name / "result.json").read_text())["guest"]["kernel"]
        for name in "ab"
    }
    assert kernels == {str(home.cache / "guests" / "micro" / "micro.elf")}
