"""Sweeps whose workers are jobs of a real SLURM or Grid Engine, which run here for these tests."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import sweep_kills
from bench_replay import synthetic
from click.testing import CliRunner, Result

from cosim.cli import cosim
from cosim.errors import ClusterError
from cosim.sweep import conduct, engine, job_queue
from cosim.sweep.cluster import Size
from cosim.sweep.engine import Finished
from cosim.sweep.task_plan import Task
from cosim.sweep.worker import TaskReport, run_task
from tests.system.batch_system import QUEUE, BatchSystem
from tests.system.cosim_process import Command, Home
from tests.system.grid_engine import grid_engine
from tests.system.slurm import slurm

pytestmark = pytest.mark.system

TASKS = 8


@pytest.fixture(scope="module", params=[slurm, grid_engine])
def batch_system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BatchSystem]:
    with request.param(tmp_path_factory.mktemp("s") / "l") as found:
        yield found


@pytest.fixture
def at_hand(batch_system: BatchSystem, monkeypatch: pytest.MonkeyPatch) -> BatchSystem:
    """The batch system, which commands of this process use too."""
    for name, value in batch_system.environment.items():
        monkeypatch.setenv(name, value)
    return batch_system


def write_file(folder: Path, kind: str, queue: str = QUEUE, more: str = "") -> Path:
    """Write a sweep file of some tasks for one worker, and their trace; return its path."""
    synthetic(folder / "made", 20_000)
    file = sweep_kills.write_file(folder, TASKS, ["native"])
    with file.open("a") as text:
        text.write(
            f'[cluster]\nkind = "{kind}"\nqueue = "{queue}"\nmemory = "1GB"\n'
            f'walltime = "00:10:00"\n{more}'
        )
    return file


def sweep(file: Path, output: Path) -> Result:
    """Run the command in this process; return its exit status, or raise its error."""
    words = ["sweep", str(file), "-o", str(output)]
    return CliRunner().invoke(cosim, words, standalone_mode=False, catch_exceptions=False)


def without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sweeps do their tasks in this process from now on."""

    @contextmanager
    def opened(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(
            where="this process",
            dashboard=None,
            size=lambda: Size(1, None),
            check=lambda *_: None,
        )

    def work_off(_: object, tasks: Sequence[Task], **_more: object) -> Iterator[Finished]:
        for task in tasks:
            yield Finished(task, run_task(task))

    monkeypatch.setattr(conduct, "opened", opened)
    monkeypatch.setattr(conduct, "work_off", work_off)


def cancelling_once(folder: Path, cancel: str) -> Callable[[Task], TaskReport]:
    """Return what runs a task; the third one cancels its own job, once."""
    folder.mkdir()
    (folder / "cancel").touch()

    def run(task: Task) -> TaskReport:
        if len(list((folder / "results").glob("*.parquet"))) >= 2:
            try:
                (folder / "cancel").unlink()
            except FileNotFoundError:
                return run_task(task)
            subprocess.run(cancel, shell=True, check=True)
            time.sleep(60)
        return run_task(task)

    # A worker gets it by value, as it cannot import this module.
    return run


def test_a_job_that_is_cancelled_is_replaced_and_changes_nothing(
    at_hand: BatchSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_queue, "_LOOK", 0.5)
    file = write_file(tmp_path, at_hand.kind)
    run = cancelling_once(tmp_path / "jobs", at_hand.cancel)
    monkeypatch.setattr(conduct, "work_off", partial(engine.work_off, run=run))
    swept = sweep(file, tmp_path / "jobs")
    assert swept.return_value == 0, swept.output
    assert f"of the cluster of {at_hand.kind}" in swept.output
    assert not (tmp_path / "jobs/cancel").exists()
    # One job that was cancelled, and the one that took its place.
    assert len(list((tmp_path / "jobs" / job_queue.LOGS).glob(at_hand.logs))) == 2
    assert at_hand.jobs() == []
    without_workers(monkeypatch)
    assert sweep(file, tmp_path / "here").return_value == 0
    rows = sweep_kills.table(tmp_path / "here")
    assert len(rows) == TASKS
    assert sweep_kills.table(tmp_path / "jobs") == rows


def test_ctrl_c_leaves_no_job_in_the_queue(batch_system: BatchSystem, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", plugin=False)
    more = f'workers = 2\njob_extra_directives = ["{batch_system.hold}"]\n'
    file = write_file(tmp_path, batch_system.kind, more=more)
    words: list[str | Path] = ["sweep", file, "-o", tmp_path / "out"]
    with Command(words, {**home.environment(), **batch_system.environment}) as command:
        command.until(lambda: len(batch_system.jobs()) == 2, "the jobs are in the queue")
        command.send(signal.SIGINT)
        ended = command.end()
    assert (ended.status, ended.stderr.splitlines()[-1]) == (130, "cosim: interrupted")
    assert batch_system.jobs() == []


def test_what_it_says_of_a_job_that_it_refuses_is_the_error(
    at_hand: BatchSystem, tmp_path: Path
) -> None:
    file = write_file(tmp_path, at_hand.kind, "nowhere")
    said = f"{at_hand.kind} accepts no job: .*{at_hand.refusal}"
    with pytest.raises(ClusterError, match=said):
        sweep(file, tmp_path / "out")
