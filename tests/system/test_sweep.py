"""Sweeps with real workers: killed ones, a scheduler that is there, faults, and Ctrl-C.

Root gets a full disk from a small tmpfs.  Others get it from a limit on the size of files.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import dask
import pytest
import sweep_kills
from bench_replay import synthetic
from click.testing import CliRunner
from distributed import Client, LocalCluster

from cosim import paths
from cosim.cli import cosim
from cosim.errors import ClusterError, UsageError
from cosim.run import batch
from cosim.sweep import cluster, conduct, engine, result_files, worker
from cosim.sweep.grid import configuration
from cosim.sweep.job_queue import JobQueue
from cosim.sweep.task_plan import SweptTrace, Task, make_plan
from cosim.sweep.worker import TaskReport, run_task
from tests.system.cosim_process import Command, Ended, Home, run
from tests.system.dask_scheduler import dask_scheduler

pytestmark = pytest.mark.system

TASKS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trace and a sweep file of 20 tasks over it."""
    made = tmp_path_factory.mktemp("sweep")
    synthetic(made / "made", 20_000)
    sweep_kills.write_file(made, TASKS, ["native"])
    return made


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with dask_scheduler() as address:
        yield address


@pytest.fixture(scope="module")
def calm(folder: Path, scheduler: str) -> Path:
    """The folder of a sweep that nothing has disturbed."""
    assert sweep(folder, "calm", "--scheduler", scheduler).return_value == 0
    return folder / "calm"


def sweep(folder: Path, output: str, *words: str) -> Any:
    """Run the command in this process; return its exit status, or raise its error."""
    given = ["sweep", str(folder / "kills.toml"), "-o", str(folder / output), *words]
    return CliRunner().invoke(cosim, given, standalone_mode=False, catch_exceptions=False)


def dying_at(folder: Path, *counts: int) -> Callable[[Task], TaskReport]:
    """Return what runs a task, and kills its own worker once at each of these counts of results.

    Every other worker dies after it has written its rows, before it could say so.
    """
    folder.mkdir()
    for count in counts:
        (folder / f"die-{count}").touch()

    def run(task: Task) -> TaskReport:
        there = len(list((folder / "results").glob("*.parquet")))
        for number, count in enumerate(counts):
            try:
                if there >= count:
                    (folder / f"die-{count}").unlink()
                    if number % 2:
                        run_task(task)
                    os.kill(os.getpid(), signal.SIGKILL)
            except FileNotFoundError:
                continue
        return run_task(task)

    # A worker gets it by value, as it cannot import this module.
    return run


def test_workers_that_die_change_nothing(
    folder: Path, calm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dying_at(folder / "stormy", 3, 11)
    monkeypatch.setattr(conduct, "work_off", partial(engine.work_off, run=run))
    stormy = sweep(folder, "stormy")
    assert stormy.return_value == 0, stormy.output
    assert not list((folder / "stormy").glob("die-*"))
    undisturbed = sweep_kills.table(calm)
    assert len(undisturbed) == TASKS
    assert sweep_kills.table(folder / "stormy") == undisturbed


def test_a_report_that_is_lost_with_its_worker_costs_no_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after its report was announced, and before it was fetched."""
    first = engine._reports
    lost: list[Any] = []

    def late(there: Any, batch: Any) -> Any:
        futures = [future for _, future in batch if future.status == "finished"]
        if futures and not lost:
            lost.append(futures[0])
            (holder,) = there.client.who_has(futures[:1])[futures[0].key]
            pid = there.client.run(os.getpid, workers=[holder])[holder]
            os.kill(pid, signal.SIGKILL)
            limit = time.monotonic() + 30
            while lost[0].status == "finished":
                assert time.monotonic() < limit
                time.sleep(0.01)
        return first(there, batch)

    monkeypatch.setattr(engine, "_reports", late)
    done = sweep(folder, "lost", "--workers", "1")
    assert lost and done.return_value == 0, done.output
    assert f"{TASKS} of {TASKS} rows are there, {TASKS} of them new" in done.output


class OneJob:
    """A batch system that runs one worker, and a new one only if it is asked to."""

    tasks = 1
    patience = math.inf

    def __init__(self, address: str) -> None:
        self._words = [sys.executable, "-m", "distributed.cli.dask_worker", address]
        self._words += ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.job = subprocess.Popen(self._words, stderr=subprocess.DEVNULL)

    def renew(self, finished: int) -> None:
        if self.job.poll() is not None:
            self.job = subprocess.Popen(self._words, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self.job.kill()
        self.job.wait()


def test_reports_that_are_lost_with_the_only_job_are_not_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task is done again on a new one, which someone must ask for."""
    first = engine._all_of
    lost: list[Any] = []

    def late(ended: Any) -> Any:
        found = first(ended)
        if found and not lost:
            lost.extend(found)
            jobs.end()
        return found

    monkeypatch.setattr(engine, "_all_of", late)
    monkeypatch.setattr(engine, "_FETCH", 1.0)
    trace = SweptTrace.read("made", str(folder / "made"))
    wanted = [configuration("native", {}, {"footprint_data": one}, {}) for one in range(3)]
    plan = make_plan(folder, [trace], wanted, set(), code="c", version="1", workers=1, most=1)
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
        ) as local,
        Client(local.scheduler_address) as client,
    ):
        jobs = OneJob(local.scheduler_address)
        try:
            there = cluster.Cluster(client, "the scheduler", cast(JobQueue, jobs))
            client.wait_for_workers(1, timeout=60)
            run = lambda task: TaskReport(task.rows, 0, 0.0)  # noqa: E731 - goes by value
            done = [one.task.name for one in engine.work_off(there, plan.tasks, run)]
        finally:
            jobs.end()
    assert lost and sorted(done) == sorted(task.name for task in plan.tasks)


def test_a_worker_that_dask_gives_up_is_replaced(folder: Path, tmp_path: Path) -> None:
    """Dask does so if a worker that was lost takes longer to start again than it has patience."""
    trace = SweptTrace.read("made", str(folder / "made"))
    wanted = [configuration("native", {}, {}, {})]
    plan = make_plan(folder, [trace], wanted, set(), code="c", version="1", workers=1, most=1)
    (tmp_path / "scratch").mkdir()
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        cluster.opened(cluster.Wish(workers=1), tmp_path / "scratch", print) as there,
    ):
        processes = cast(Any, there.jobs).dask.workers
        os.kill(processes[0].pid, signal.SIGKILL)
        limit = time.monotonic() + 60
        while processes:
            assert time.monotonic() < limit
            time.sleep(0.01)
        run = lambda task: TaskReport(task.rows, 0, 0.0)  # noqa: E731 - goes by value
        done = [one.task.name for one in engine.work_off(there, plan.tasks, run)]
    assert done == [task.name for task in plan.tasks]


def test_a_second_sweep_is_refused_and_ctrl_c_keeps_what_is_done_and_leaves_no_process(
    folder: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path, plugin=False)
    # Far more tasks than are done before it is interrupted.
    (tmp_path / "made").symlink_to(folder / "made")
    file = sweep_kills.write_file(tmp_path, 3000, ["native"])
    results = tmp_path / "out" / "results"
    words = ["sweep", str(file), "-o", str(tmp_path / "out")]
    with Command(words, home.environment()) as command:
        command.until(lambda: any(results.glob("*.parquet")), "the first task has ended")
        second = run(words, home.environment())
        assert (second.status, command.process.poll()) == (2, None)
        assert second.line == f"{tmp_path / 'out'}: another cosim process is doing runs there"
        command.send(signal.SIGINT)
        ended = command.end()
        command.assert_gone()
    kept, last = ended.stderr.splitlines()[-2:]
    assert (ended.status, last) == (130, "cosim: interrupted")
    assert kept.endswith(" of 3,000 rows are there; the same command goes on")
    looked = CliRunner().invoke(cosim, [*words, "--dry-run", "--json"], standalone_mode=False)
    done = len(list(results.glob("*.parquet")))
    assert json.loads(looked.output)["done_already"] == done > 0
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["status"] == "interrupted"


def test_there_is_nothing_left_to_do(folder: Path, calm: Path) -> None:
    """No worker is started for that."""
    done = sweep(folder, calm.name)
    assert f"{TASKS} of {TASKS} rows are there, 0 of them new" in done.output


def test_a_worker_that_is_not_fit_is_named_before_anything_starts(
    folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "code_version", lambda: "f" * 32)
    with pytest.raises(ClusterError, match=r"worker tcp://\S+ has another version of the tool"):
        sweep(folder, "unfit", "--scheduler", scheduler)
    monkeypatch.undo()

    def unseen(path: str) -> None:
        raise UsageError(f"{path}: no such folder")

    monkeypatch.setattr(worker, "open_trace", unseen)
    with pytest.raises(ClusterError, match=r"cannot use a trace: \S+/made: no such folder"):
        sweep(folder, "unfit", "--scheduler", scheduler)
    assert not list((folder / "unfit" / "results").iterdir())


def test_a_failed_task_leaves_the_others_alone(
    folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    first = result_files.write_rows

    def once(place: Path, name: str, rows: Any) -> None:
        monkeypatch.setattr(worker, "write_rows", first)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "write_rows", once)
    done = sweep(folder, "hurt", "--scheduler", scheduler)
    assert done.return_value == 3
    assert f"{TASKS - 1} of {TASKS} rows are there" in done.output
    assert "\n1 task failed; logs: " in done.output
    (log,) = (folder / "hurt" / "failures").iterdir()
    assert "No space left on device" in log.read_text()
    again = sweep(folder, "hurt", "--scheduler", scheduler)
    assert again.return_value == 0
    assert f"{TASKS} of {TASKS} rows are there, 1 of them new" in again.output


class SmallDisk:
    """Where a sweep finds no room for all of its results, until :meth:`grow`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._root = os.geteuid() == 0
        self._full = True
        place.mkdir()
        if self._root:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "none", place], check=True)

    @property
    def reason(self) -> str:
        """What the system says."""
        return "No space left on device" if self._root else "File too large"

    def sweep(self, file: Path) -> Ended:
        """Do the sweep of ``file`` here, with a worker of this machine."""
        words = ["sweep", str(file), "-o", str(self.place / "out"), "--workers", "1"]
        with Command(words, os.environ) as command:
            if self._full and not self._root:
                limit = (8_000, 8_000)
                resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, limit)
            return command.end()

    def grow(self) -> None:
        self._full = False
        if self._root:
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.place)], check=True)

    def remove(self) -> None:
        if self._root:
            subprocess.run(["umount", self.place], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small")
    try:
        yield disk
    finally:
        disk.remove()


def test_a_full_disk_is_said_once_and_the_next_sweep_does_the_rest(
    folder: Path, calm: Path, small_disk: SmallDisk
) -> None:
    ended = small_disk.sweep(folder / "kills.toml")
    assert ended.status == 3, ended.stderr
    results = small_disk.place / "out/results"
    said = [line for line in ended.stderr.splitlines() if f": {results}: " in line]
    assert len(said) == 1, ended.stderr
    assert said[0].startswith(f"cosim: made: {results}: cannot be written ({small_disk.reason}) (")
    assert "3 tasks in a row failed because of the trace or a disk" in ended.stderr
    assert "Traceback" not in ended.stderr
    kept = sweep_kills.table(small_disk.place / "out")
    assert len(kept) < TASKS
    assert not list(results.glob(".*"))
    small_disk.grow()
    ended = small_disk.sweep(folder / "kills.toml")
    assert ended.status == 0, ended.stderr
    assert f"{TASKS} of {TASKS} rows are there, {TASKS - len(kept)} of them new" in ended.stdout
    assert sweep_kills.table(small_disk.place / "out") == sweep_kills.table(calm)


def test_a_worker_process_of_another_version_is_named(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("cosim", "hypervisor_model"):
        shutil.copytree(paths.SOURCE / name, other / name)
    with (other / "hypervisor_model/costs.py").open("a") as file:
        file.write("\n_NEWER = True\n")
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as there:
        address = there.scheduler_address
        words = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
        environment = {**os.environ, "PYTHONPATH": str(other)}
        log = tmp_path / "log"
        with (
            log.open("w") as said,
            subprocess.Popen(words, cwd=other, env=environment, stderr=said) as started,
        ):
            try:
                with pytest.raises(ClusterError, match=r"worker tcp://\S+ has another version"):
                    sweep(folder, "versions", "--scheduler", address)
            finally:
                started.terminate()
    assert not list((folder / "versions" / "results").iterdir())


def test_the_dashboard_that_is_named_is_there(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with cluster.opened(cluster.Wish(workers=1), scratch, lambda _: None) as ours:
        assert ours.dashboard is not None
        # A proxy of the machine's does not lead here.
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(ours.dashboard, timeout=60) as page:
            assert b"static/js/bokeh.min.js" in page.read()
        wish = cluster.Wish(scheduler=ours.client.scheduler.address)
        with cluster.opened(wish, scratch, lambda _: None) as there:
            assert there.dashboard == ours.dashboard


def test_faults_before_the_start(folder: Path, calm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ANSWER", 1.0)
    with pytest.raises(ClusterError, match="no scheduler of Dask answers there"):
        sweep(folder, "none", "--scheduler", "tcp://127.0.0.1:1")
    with batch.sole(calm), pytest.raises(UsageError, match="another cosim process"):
        sweep(folder, calm.name)


def test_a_trace_that_changed_under_its_name_is_refused(folder: Path, calm: Path) -> None:
    (folder / "made").rename(folder / "kept")
    synthetic(folder / "made", 30_000)
    try:
        with pytest.raises(UsageError, match="is not the trace made that the sweep"):
            sweep(folder, calm.name)
    finally:
        (folder / "made").rename(folder / "other")
        (folder / "kept").rename(folder / "made")
