"""Giving tasks to workers: a window of them at a time, so that memory does not grow with the sweep.

A task whose worker is lost starts again on another one, a bounded number of times.  A task that
fails by itself is reported, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import queue
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosim.errors import ClusterError
from cosim.sweep.cluster import NO_WORKERS, Cluster
from cosim.sweep.task_plan import Task
from cosim.sweep.worker import Failure, TaskReport, run_task

if TYPE_CHECKING:
    from distributed import Future

_AHEAD = 2
"""Tasks given out for each one that runs: so many that no worker waits for the next."""
_TICK = 2.0
"""Seconds between two looks at the cluster."""
_FETCH = 10.0
"""Seconds in which reports that are there must come."""


@dataclass(frozen=True)
class Finished:
    """One task that has ended."""

    task: Task
    report: TaskReport


def work_off(
    cluster: Cluster,
    tasks: Sequence[Task],
    run: Callable[[Task], TaskReport] = run_task,
    *,
    given_up: Container[str] = (),
) -> Iterator[Finished]:
    """Yield each task when it has ended, in no order.

    :param run: does one task, on a worker.
    :param given_up: names of traces whose tasks are not started any more.  The caller may
        add to it.
    :raises ClusterError: when the scheduler or all workers are gone.
    """
    ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    running: dict[str, tuple[Task, Future[Any]]] = {}
    waiting = (task for task in tasks if task.trace.name not in given_up)
    window = _AHEAD * cluster.size().tasks
    alone_since: float | None = None
    look = time.monotonic() + _TICK
    finished = 0
    try:
        while True:
            given = list(itertools.islice(waiting, max(0, window - len(running))))
            for task, future in zip(given, _give_out(cluster, run, given), strict=True):
                running[future.key] = task, future
                future.add_done_callback(ended.put)
            if not running:
                return
            if time.monotonic() >= look:
                look = time.monotonic() + _TICK
                there = _workers(cluster)
                window = _AHEAD * max(1, there)
                alone_since = None if there else alone_since or time.monotonic()
                patience = NO_WORKERS
                if cluster.jobs is not None:
                    cluster.jobs.renew(finished)
                    patience = cluster.jobs.patience
                if alone_since and time.monotonic() - alone_since > patience:
                    raise ClusterError(f"{cluster.where} has no workers any more")
            batch = [running[future.key] for future in _all_of(ended)]
            reports = _reports(cluster, batch)
            for task, future in batch:
                report = reports.get(future.key)
                if report is None:
                    future.add_done_callback(ended.put)
                    continue
                finished += 1
                del running[future.key]
                yield Finished(task, report)
                future.release()
    finally:
        if running:
            # The scheduler may be gone.
            with contextlib.suppress(Exception):
                cluster.client.cancel([future for _, future in running.values()], force=True)


def _workers(cluster: Cluster) -> int:
    """Return how many tasks run at a time now.

    :raises ClusterError: when the scheduler is gone.
    """
    if cluster.client.status != "running":
        raise ClusterError(f"{cluster.where} is gone")
    with _scheduler(cluster):
        return sum(cluster.client.nthreads().values())


@contextlib.contextmanager
def _scheduler(cluster: Cluster) -> Iterator[None]:
    """Report an error of the connection to the scheduler as one of ours.

    :raises ClusterError: when the scheduler does not answer in this context.
    """
    try:
        yield
    except (OSError, TimeoutError, CancelledError, asyncio.CancelledError):
        raise ClusterError(f"{cluster.where} is gone") from None


def _give_out(
    cluster: Cluster, run: Callable[[Task], TaskReport], tasks: Sequence[Task]
) -> list[Future[Any]]:
    """Give ``tasks`` to the scheduler.  All at once takes little more than one alone."""
    if not tasks:
        return []
    # Dask keeps statistics for the name before the dash, for as long as the scheduler lives.
    keys = [f"task-{task.name}" for task in tasks]
    with _scheduler(cluster):
        found: list[Future[Any]] = cluster.client.map(run, tasks, key=keys, pure=False)
    return found


def _all_of(ended: queue.SimpleQueue[Future[Any]]) -> list[Future[Any]]:
    """Return the futures that have ended, after waiting for the first; none after a while."""
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(ended.get(timeout=_TICK))
        while True:
            found.append(ended.get_nowait())
    return found


def _reports(cluster: Cluster, batch: Sequence[tuple[Task, Future[Any]]]) -> dict[str, TaskReport]:
    """Return how each task ended, by key.

    A task whose worker died before its report was fetched starts again, and is left out.

    :raises ClusterError: when the scheduler is gone.
    """
    found: dict[str, TaskReport] = {}
    there: dict[str, Future[Any]] = {}
    for task, future in batch:
        status = future.status
        if status == "finished":
            there[future.key] = future
        elif status == "error":
            found[future.key] = _failed(cluster, task, future)
        elif status == "cancelled":
            raise ClusterError(f"{cluster.where} is gone")
    if there:
        # A report whose worker dies now would be waited for until another worker has done its task
        # again.  There may be no other before this command asks for one.
        gather = functools.partial(cluster.client.gather, there, errors="skip", asynchronous=True)
        with _scheduler(cluster), contextlib.suppress(TimeoutError):
            fetched = cluster.client.sync(gather, callback_timeout=_FETCH)
            found.update({key: report for key, report in fetched.items() if report is not None})
    return found


def _failed(cluster: Cluster, task: Task, future: Future[Any]) -> TaskReport:
    """Return what to report for ``task``, which has not reported itself.

    :raises ClusterError: when the scheduler is gone.
    """
    with _scheduler(cluster):
        error = future.exception()
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        why = "its worker was lost each time that it was tried; it may need more memory"
    else:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
    return TaskReport(0, 0, 0.0, (Failure(task.trace.name, why, 3, repr(error), task.rows),))
