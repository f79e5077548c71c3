"""Runs in processes: beside each other, each alone in its failure, none left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cosim import paths
from cosim.models.result import ResultDocument
from cosim.run import run_processes
from cosim.run.batch import Failed, Task
from cosim.run.run_processes import at_a_time, in_processes
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb
from tests.cosim.run.process_runs import await_file, execute
from tests.cosim.streams import result_document

DONE = result_document()
KILLED = "the process of this run was killed by signal 9 (SIGKILL; was there too little memory?)"


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes find this test."""
    monkeypatch.setenv("PYTHONPATH", str(paths.SOURCE))


def tasks(folder: Path, **workloads: str) -> list[Task]:
    """Return a task for each name and workload, with its folder."""
    made = []
    for name, workload in workloads.items():
        (folder / name).mkdir()
        made.append((RunSpec(name, Gdb(), guest="micro", workload=workload), folder / name))
    return made


def do(jobs: int, given: list[Task]) -> dict[str, ResultDocument | Failed]:
    ended = in_processes(execute, jobs)(iter(given), len(given))
    return {spec.name: result for spec, result in ended}


def is_alive(folder: Path) -> bool:
    """Return True if the process that did the run in ``folder`` is there."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_runs_are_beside_each_other(tmp_path: Path) -> None:
    """Each waits for the other one."""
    given = tasks(tmp_path, a="meet b", b="meet a", c="")
    assert do(2, given) == {"a": DONE, "b": DONE, "c": DONE}
    assert not any(is_alive(folder) for _, folder in given)
    # The third was done by a process that was there already.
    assert len({(folder / "pid").read_text() for _, folder in given}) == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_is_taken_when_it_starts(tmp_path: Path, jobs: int) -> None:
    taken = []

    def one_by_one() -> Iterator[Task]:
        for task in tasks(tmp_path, a="", b="", c=""):
            taken.append(task[0].name)
            yield task

    with closing(at_a_time(jobs, execute)(one_by_one(), 3)) as ended:
        next(ended)
        assert len(taken) == jobs


def test_a_run_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    given = tasks(tmp_path, a="fail", b="die", c="bug", d="", e="")
    assert do(2, given) == {
        "a": Failed("the guest panicked (log: x.log)", 3),
        "b": Failed(KILLED, 3),
        "c": Failed("a bug in cosim (ZeroDivisionError); please report the lines above", 3),
        "d": DONE,
        "e": DONE,
    }


def test_each_line_has_the_name_of_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    do(2, tasks(tmp_path, a="say one thing", b="say \x1b[2Janother", c="die last words"))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if ": a: " in line] == [
        "cosim: a: one thing",
        "cosim: a: and half a line",
    ]
    assert "cosim: b: \\x1b[2Janother" in lines
    assert "cosim: c: last words" in lines
    assert len(lines) == 5


def test_an_end_reaches_all_runs_and_waits_for_their_teardown(tmp_path: Path) -> None:
    given = tasks(tmp_path, quick="", a="wait", b="wait")
    ended = in_processes(execute, 3)(iter(given), 3)
    assert next(ended)[0].name == "quick"
    for name in "ab":
        await_file(tmp_path / name / "waits")
    ended.close()
    for name in "ab":
        assert (tmp_path / name / "teardown").exists()
    assert not any(is_alive(folder) for _, folder in given)


def test_a_run_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_processes, "_TEARDOWN", 0.0)
    given = tasks(tmp_path, quick="", a="wait")
    ended = in_processes(execute, 2)(iter(given), 2)
    next(ended)
    await_file(tmp_path / "a" / "waits")
    ended.close()
    assert not is_alive(tmp_path / "a")


def test_the_time_left_is_the_mean_of_the_runs_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    shown: list[tuple[float, float | None, str | None]] = []
    bar = run_processes._Bar(lambda *step: shown.append(step), 10)
    for now, ended, running in ((100, 0, 4), (120, 4, 4), (125, 4, 4), (150, 9, 1)):  # noqa: B007
        bar.show(ended, running)
    assert shown == [
        (0, None, "runs: 0/10 done, 4 running"),
        (20, 50, "runs: 4/10 done, 4 running"),
        (25, 50, "runs: 4/10 done, 4 running"),
        (50, pytest.approx(500 / 9), "runs: 9/10 done, 1 running"),
    ]
