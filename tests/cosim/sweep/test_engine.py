"""Giving tasks out to a scheduler that is made up: how many at a time, and lost reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from bench_replay import synthetic

from cosim.errors import ClusterError
from cosim.sweep.cluster import Cluster, Size
from cosim.sweep.engine import work_off
from cosim.sweep.grid import configuration
from cosim.sweep.task_plan import SweptTrace, Task, make_plan
from cosim.sweep.worker import TaskReport

WORKERS = 3
TASKS = 40


class FakeFuture:
    """A task that has ended as soon as someone waits for it.

    :param ending: the status at the first look; after "lost" the task is done again.
    """

    def __init__(self, key: str, report: TaskReport, ending: str) -> None:
        self.key = key
        self.report = report
        self.status = "pending"
        self.released = False
        self._ending = ending

    def add_done_callback(self, told: Callable[[FakeFuture], None]) -> None:
        self.status, self._ending = self._ending, "finished"
        told(self)

    def release(self) -> None:
        self.released = True


class FakeClient:
    """A scheduler that does each task at once.

    :param endings: the first statuses of tasks, by number; the others finish.
    """

    status = "running"

    def __init__(self, endings: dict[int, str]) -> None:
        self._endings = endings
        self.made: list[FakeFuture] = []
        self.outstanding: list[int] = []
        """How many tasks were not released yet, after each call."""
        self.cancelled: list[FakeFuture] = []

    def map(self, run: Any, tasks: Sequence[Task], *, key: list[str], pure: bool) -> Any:
        new = [
            FakeFuture(name, run(task), self._endings.get(len(self.made) + number, "finished"))
            for number, (name, task) in enumerate(zip(key, tasks, strict=True))
        ]
        self.made += new
        self.outstanding.append(sum(not one.released for one in self.made))
        return new

    def sync(self, call: Callable[[], Any], callback_timeout: float) -> Any:
        return call()

    def gather(
        self, wanted: dict[str, FakeFuture], errors: str, asynchronous: bool
    ) -> dict[str, TaskReport]:
        return {key: one.report for key, one in wanted.items() if one.status == "finished"}

    def cancel(self, futures: list[FakeFuture], force: bool) -> None:
        self.cancelled += futures


class FakeCluster:
    """Workers that are none."""

    where = "the fake cluster"
    jobs = None

    def __init__(self, **endings: str) -> None:
        self.client = FakeClient({int(name[1:]): status for name, status in endings.items()})

    def size(self) -> Size:
        return Size(WORKERS, None)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, ...]:
    folder = tmp_path_factory.mktemp("trace")
    synthetic(folder / "made", 1_000)
    trace = SweptTrace.read("made", str(folder / "made"))
    wanted = [configuration("native", {}, {"footprint_data": one}, {}) for one in range(TASKS)]
    made = make_plan(folder, [trace], wanted, set(), code="c", version="1", workers=WORKERS, most=1)
    return made.tasks


def done(cluster: FakeCluster, tasks: Sequence[Task]) -> list[str]:
    def run(task: Task) -> TaskReport:
        return TaskReport(task.rows, 0, 0.0)

    return [one.task.name for one in work_off(cast(Cluster, cluster), tasks, run)]


def test_few_tasks_are_out_at_a_time(tasks: Sequence[Task]) -> None:
    """So the scheduler's memory follows the workers, not the tasks."""
    cluster = FakeCluster()
    assert sorted(done(cluster, tasks)) == sorted(task.name for task in tasks)
    client = cluster.client
    # Every worker has one to go on with, and what is released is forgotten.
    assert max(client.outstanding) == 2 * WORKERS
    assert all(one.released for one in client.made)
    # Those that end together are replaced together.
    assert len(client.outstanding) < TASKS // 2
    # Dask keeps statistics for each name before a dash.
    assert {one.key.partition("-")[0] for one in client.made} == {"task"}
    assert len({one.key for one in client.made}) == TASKS


def test_a_report_that_is_lost_with_its_worker_is_waited_for(tasks: Sequence[Task]) -> None:
    cluster = FakeCluster(n0="lost", n7="lost")
    found = done(cluster, tasks)
    assert sorted(found) == sorted(task.name for task in tasks)
    assert found[0] != tasks[0].name


def test_a_scheduler_that_is_gone_ends_it(tasks: Sequence[Task]) -> None:
    cluster = FakeCluster(n9="cancelled")
    with pytest.raises(ClusterError, match="the fake cluster is gone"):
        done(cluster, tasks)
    assert cluster.client.made[9] in cluster.client.cancelled
