"""The workers of a sweep: processes of this machine, a scheduler that is there, or a batch system.

The table ``[cluster]`` of a sweep file has ``kind``, ``workers`` (how many to start) and, for all
but ``local``, what describes them; for a batch system these are the arguments of a class:

============== ===================================================================================
kind           what starts the workers
============== ===================================================================================
local          this machine (the default): ``workers`` processes, as many as there are processors
slurm, pbs,    ``SLURMCluster``, ``PBSCluster``, ``LSFCluster`` and ``SGECluster`` of dask-jobqueue,
lsf, sge       with ``queue``, ``cores``, ``memory``, ``walltime`` ...
kubernetes     Dask's operator in the cluster, with ``image``, ``namespace``, ``volumes`` ...
============== ===================================================================================
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from cosim.errors import ClusterError, MissingTool, StorageError, UsageError
from cosim.machine import host_memory, interrupts
from cosim.sweep import job_queue, kubernetes_table, tls
from cosim.sweep.job_queue import WORKER_ENVIRONMENT, WORKER_SETTINGS, JobQueue
from cosim.sweep.kubernetes import Pods
from cosim.sweep.worker import Greeting, greet

if TYPE_CHECKING:
    from distributed import Client

KINDS = ("local", *job_queue.CLASSES, "kubernetes")
_LEFT_FREE = 1 << 30
"""Memory of this machine that local workers leave to the command and to others (ours)."""
_TRIES = 4
"""How often a task is started, if the worker that does it is lost each time."""
_ANSWER = 10.0
"""Seconds in which a scheduler must answer."""
NO_WORKERS = 120.0
"""Seconds without any worker after which a sweep ends, if no batch system may still start some."""
_FIRST_WORKER = 60.0
"""Seconds in which a scheduler that is there must have a worker."""


@dataclass(frozen=True)
class Wish:
    """Which workers the user wants."""

    scheduler: str | None = None
    """The address of a scheduler that is there."""
    workers: int | None = None
    """How many to start; None: as many as this machine has processors and memory for."""
    table: Mapping[str, Any] | None = None
    """``[cluster]`` of the sweep's file."""


@dataclass(frozen=True)
class Size:
    """How much a cluster does at a time."""

    tasks: int
    """Tasks at a time."""
    memory: int | None
    """Bytes for each of them, on the smallest worker; None if that is not limited."""


class Supply(Protocol):
    """What starts workers, and starts new ones for those that are lost."""

    tasks: int
    """How many tasks all workers do at a time."""
    patience: float
    """Seconds without a worker after which there will be none."""

    def renew(self, finished: int) -> None:
        """See to it that there are workers.

        :param finished: how many tasks have finished so far.
        :raises ClusterError: when there will be none.
        """


class Cluster:
    """An open connection to the workers.

    :param client: of Dask.
    :param where: names the scheduler in messages.
    :param jobs: what started the workers; None: the scheduler had them already.
    :param dashboard: the address of the scheduler's dashboard, if Dask does not know it.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        jobs: Supply | None = None,
        dashboard: str | None = None,
    ) -> None:
        self.client = client
        self.where = where
        self.jobs = jobs
        self._dashboard = dashboard

    @property
    def dashboard(self) -> str | None:
        """The address of the scheduler's dashboard.

        If the scheduler is another machine's and lacks bokeh, its page says so.
        """
        link: str | None = self._dashboard or self.client.dashboard_link
        return link

    def size(self) -> Size:
        """Return how much the workers do at a time, with those that a batch system still owes."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        threads = sum(worker["nthreads"] for worker in workers)
        if self.jobs is not None:
            threads = max(threads, self.jobs.tasks)
        limits = [
            worker["memory_limit"] // max(1, worker["nthreads"])
            for worker in workers
            if worker["memory_limit"]
        ]
        return Size(max(1, threads), min(limits, default=None))

    def check(self, folder: Path, traces: Sequence[tuple[str, str]], code: str) -> None:
        """Check that every worker can do the sweep.

        :param folder: of the sweep.
        :param traces: place and checksum of each.
        :param code: the digest of the models' code.
        :raises ClusterError: when one cannot; the message says which, and why.
        :raises StorageError: when ``folder`` cannot be written.
        """
        token = folder / f".token-{uuid4().hex}"
        try:
            token.touch()
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
        try:
            answers = self.client.run(greet, str(token), list(traces), on_error="return")
        except (OSError, TimeoutError) as error:
            raise ClusterError(f"{self.where}: the workers do not answer ({error})") from error
        finally:
            token.unlink(missing_ok=True)
        for worker, answer in answers.items():
            problem = _unfit(answer, folder, code)
            if problem is not None:
                others = f"; {len(answers)} workers were asked" if len(answers) > 1 else ""
                raise ClusterError(f"worker {worker} {problem}{others}")


def _unfit(answer: Any, folder: Path, code: str) -> str | None:
    """Return why a worker that gave ``answer`` cannot do the sweep, or None."""
    if isinstance(answer, ImportError):
        return f"does not have this version of the tool ({answer}); install the same one there"
    if isinstance(answer, Exception) and "ModuleNotFoundError" in str(answer):
        # Dask gives the error of an argument that it cannot read as text.
        return "does not have the tool; install the same version there"
    if not isinstance(answer, Greeting):
        return f"does not answer as it must ({answer!r}); install the same version of the tool"
    if answer.code != code:
        return (
            f"has another version of the tool ({answer.version}, models {answer.code[:12]}, and "
            f"here {code[:12]}); install the same one there"
        )
    if not answer.sees_folder:
        return f"does not see the folder {folder}; name one with -o that all machines share"
    if answer.unseen:
        return f"cannot use a trace: {answer.unseen[0]}"
    return None


def check_table(table: Mapping[str, Any]) -> None:
    """Check the table ``[cluster]`` as far as that needs no cluster.

    :raises UsageError: when its ``kind`` is unknown, or ``workers`` is no number.
    :raises MissingTool: when the library for that kind is not installed.
    """
    kind = table.get("kind", "local")
    if kind not in KINDS:
        raise UsageError(f"[cluster]: kind is {kind!r}; the kinds are {', '.join(KINDS)}")
    workers = table.get("workers", 1)
    if type(workers) is not int or not 1 <= workers <= 100_000:
        raise UsageError(f"[cluster]: workers is {workers!r}, not in 1..100000")
    if kind == "local":
        unknown = sorted(table.keys() - {"kind", "workers"})
        if unknown:
            raise UsageError(f"[cluster]: {unknown[0]} has no effect on this machine's workers")
    elif kind == "kubernetes":
        kubernetes_table.check_table(table)
    else:
        job_queue.check_table(kind, table)


def local_workers(wish: Wish) -> int | None:
    """Return how many workers of this machine are asked for; None if that is not said."""
    table = wish.table or {}
    if wish.scheduler is not None or table.get("kind", "local") != "local":
        return None
    count: int | None = wish.workers or table.get("workers")
    return count


def expected_size(wish: Wish) -> Size | None:
    """Return how much the workers that would be started do at a time, as far as this is known.

    :return: None if no workers would be started, because a scheduler has them.
    """
    table = wish.table or {}
    if wish.scheduler is not None:
        return None
    if table.get("kind", "local") == "local":
        return _local_size(local_workers(wish))
    return Size(wish.workers or table.get("workers") or 1, None)


def _local_size(count: int | None) -> Size:
    found = host_memory.available()
    left = None if found is None else max(found.size - _LEFT_FREE, found.size // 2)
    workers = count or len(os.sched_getaffinity(0))
    return Size(workers, left // workers if left else None)


@contextmanager
def opened(wish: Wish, scratch: Path, note: Callable[[str], None]) -> Iterator[Cluster]:
    """Yield a connection to the workers; workers that were started for it end with the context.

    :param scratch: a folder for files of local workers, which is there, in that of the sweep.
    :param note: writes a line for the user.
    :raises MissingTool: when Dask, or a library of the batch system, is not installed.
    :raises ClusterError: when the scheduler cannot be reached, or has no workers.
    """
    _prepare(scratch)
    with ExitStack() as stack:
        try:
            # What has started is closed, however the rest of the start ends.
            with interrupts.deferred():
                cluster = _start(stack, wish, scratch.parent, note)
            yield cluster
            stack.callback(interrupts.check)
        finally:
            # A second Ctrl-C must not cut this off.
            with interrupts.deferred():
                stack.close()


def _prepare(scratch: Path) -> None:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingTool(
            f"cosim sweep needs Dask, which is not installed ({error}); "
            "type `pip install distributed`, or scripts/setup in a checkout"
        ) from None
    assert distributed
    tls.mend()
    dask.config.set(
        {
            "temporary-directory": str(scratch),
            "distributed.scheduler.allowed-failures": _TRIES - 1,
            **WORKER_SETTINGS,
            **{
                f"distributed.nanny.pre-spawn-environ.{name}": value
                for name, value in WORKER_ENVIRONMENT.items()
            },
            "distributed.comm.timeouts.connect": f"{_ANSWER:.0f}s",
            "distributed.logging": {"distributed": "critical"},
        }
    )
    # We report lost workers and schedulers ourselves.
    for name in ("distributed", "distributed.client", "distributed.nanny", "distributed.core"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _start(stack: ExitStack, wish: Wish, folder: Path, note: Callable[[str], None]) -> Cluster:
    table = dict(wish.table or {})
    kind = table.pop("kind", "local")
    count = table.pop("workers", None)
    wanted = wish.workers or count or 1
    if wish.scheduler is not None:
        address = wish.scheduler
        where = f"the scheduler at {address}"
        try:
            client = _client_at(address)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"{address}: no scheduler of Dask answers there ({_first_line(error)}); start one "
                "with `dask scheduler`, or leave --scheduler out to use this machine"
            ) from None
        stack.callback(client.close)
        try:
            with interrupts.allowed():
                client.wait_for_workers(1, timeout=_FIRST_WORKER)
        except TimeoutError:
            raise ClusterError(
                f"{where} has no workers; start some with `dask worker {address}`"
            ) from None
        return Cluster(client, where)
    if kind == "kubernetes":
        return _on_kubernetes(stack, Pods(table, wanted, note))
    if kind == "local":
        processes = _Processes(local_workers(wish))
        client = _client_of(stack, processes.dask)
        return Cluster(client, "the local cluster", processes)
    jobs = JobQueue(kind, table, wanted, folder, note)
    client = _client_of(stack, jobs.dask)
    jobs.start(client)
    return Cluster(client, f"the cluster of {kind}", jobs)


def _client_of(stack: ExitStack, started: Any) -> Client:
    """Return a client of the cluster ``started`` of Dask; ``stack`` closes both."""
    from distributed import Client

    stack.callback(started.close)
    client = Client(started, set_as_default=False)
    stack.callback(client.close)
    return client


def _client_at(address: str) -> Client:
    """Return a client of the scheduler at ``address``.

    :raises ValueError: when ``address`` is malformed.
    :raises OSError: when no scheduler answers there in time.
    """
    from distributed import Client

    with interrupts.allowed():
        # A client that could not connect takes long to end, and complains.
        asyncio.run(_reach(address))
        return Client(address, timeout=_ANSWER, set_as_default=False)


async def _reach(address: str) -> None:
    """Connect to the scheduler at ``address`` once."""
    from distributed import Security
    from distributed.comm import connect

    try:
        # Dask limits how long it takes to connect, but not how long the scheduler takes to answer.
        async with asyncio.timeout(_ANSWER):
            secrets = Security().get_connection_args("client")
            comm = await connect(address, timeout=_ANSWER, **secrets)
    except TimeoutError:
        raise OSError(f"no answer in {_ANSWER:.0f} s") from None
    await comm.close()


def _on_kubernetes(stack: ExitStack, pods: Pods) -> Cluster:
    stack.callback(pods.close)
    address = pods.start()
    where = "the cluster on Kubernetes"
    try:
        client = _client_at(address)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{where}: its scheduler does not answer ({_first_line(error)})"
        ) from None
    stack.callback(client.close)
    pods.wait(client)
    return Cluster(client, where, pods, pods.dashboard)


class _Processes:
    """Workers that are processes of this machine.

    :param count: how many; None: as many as there are processors.
    """

    patience = NO_WORKERS

    def __init__(self, count: int | None) -> None:
        self.dask = _local(count)
        self.tasks = len(self.dask.worker_spec)

    def renew(self, finished: int) -> None:
        """Start a new process for each that Dask has given up.

        It starts a lost one again, but gives that up if it takes long, as on a busy machine.
        """
        self.dask.scale(self.tasks)


def _local(count: int | None) -> Any:
    from distributed import LocalCluster

    size = _local_size(count)
    try:
        with _kept_from_workers():
            return LocalCluster(
                n_workers=size.tasks,
                threads_per_worker=1,
                processes=True,
                memory_limit=size.memory or 0,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"local workers cannot start: {_first_line(error)}") from error


@contextmanager
def _kept_from_workers() -> Iterator[None]:
    """Keep a terminal's signals from the workers that are started in this context, and after it.

    A terminal sends Ctrl-C to the workers, too, but it is the command that ends them.  Threads that
    start here, and the processes that these start, inherit the mask.
    """
    # It would start with the first worker, and unblock SIGINT then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
