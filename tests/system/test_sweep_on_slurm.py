"""Sweeps whose workers are jobs of a real SLURM, which runs on this machine for these tests."""

from __future__ import annotations

import os
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
from tests.system.cosim_process import Command, Home
from tests.system.slurm import PARTITION, Slurm, slurm

pytestmark = pytest.mark.system

TASKS = 8


@pytest.fixture(scope="module")
def batch_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("s") / "l") as found:
        yield found


def write_file(folder: Path, queue: str = PARTITION, more: str = "") -> Path:
    """Write a sweep file of some tasks for one worker, and their trace; return its path."""
    synthetic(folder / "made", 20_000)
    file = sweep_kills.write_file(folder, TASKS, ["native"])
    with file.open("a") as text:
        text.write(
            f'[cluster]\nkind = "slurm"\nqueue = "{queue}"\nmemory = "1GB"\n'
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


def cancelling_once(folder: Path) -> Callable[[Task], TaskReport]:
    """Return what runs a task; the third one cancels its own job, once."""
    folder.mkdir()
    (folder / "cancel").touch()

    def run(task: Task) -> TaskReport:
        if len(list((folder / "results").glob("*.parquet"))) >= 2:
            try:
                (folder / "cancel").unlink()
            except FileNotFoundError:
                return run_task(task)
            subprocess.run(["scancel", os.environ["SLURM_JOB_ID"]], check=True)
            time.sleep(60)
        return run_task(task)

    # A worker gets it by value, as it cannot import this module.
    return run


def test_a_job_that_is_cancelled_is_replaced_and_changes_nothing(
    batch_system: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", batch_system.environment["SLURM_CONF"])
    monkeypatch.setattr(job_queue, "_LOOK", 0.5)
    file = write_file(tmp_path)
    run = cancelling_once(tmp_path / "jobs")
    monkeypatch.setattr(conduct, "work_off", partial(engine.work_off, run=run))
    swept = sweep(file, tmp_path / "jobs")
    assert swept.return_value == 0, swept.output
    assert "of the cluster of slurm" in swept.output
    assert not (tmp_path / "jobs/cancel").exists()
    # One job that was cancelled, and the one that took its place.
    assert len(list((tmp_path / "jobs" / job_queue.LOGS).glob("*.err"))) == 2
    assert batch_system.jobs() == []
    without_workers(monkeypatch)
    assert sweep(file, tmp_path / "here").return_value == 0
    rows = sweep_kills.table(tmp_path / "here")
    assert len(rows) == TASKS
    assert sweep_kills.table(tmp_path / "jobs") == rows


def test_ctrl_c_leaves_no_job_in_the_queue(batch_system: Slurm, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", plugin=False)
    file = write_file(tmp_path, more='workers = 2\njob_extra_directives = ["--hold"]\n')
    words: list[str | Path] = ["sweep", file, "-o", tmp_path / "out"]
    with Command(words, {**home.environment(), **batch_system.environment}) as command:
        command.until(lambda: len(batch_system.jobs()) == 2, "the jobs are in the queue")
        command.send(signal.SIGINT)
        ended = command.end()
    assert (ended.status, ended.stderr.splitlines()[-1]) == (130, "cosim: interrupted")
    assert batch_system.jobs() == []


def test_what_slurm_says_of_a_job_that_it_refuses_is_the_error(
    batch_system: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", batch_system.environment["SLURM_CONF"])
    file = write_file(tmp_path, "nowhere")
    with pytest.raises(ClusterError, match=r"slurm accepts no job: .*Invalid partition name"):
        sweep(file, tmp_path / "out")
