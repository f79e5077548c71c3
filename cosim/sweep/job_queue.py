"""Workers that are jobs of a batch system, started by dask-jobqueue.

The library submits jobs and ends them.  It does not say why a job was refused, and does not see
that a job has ended which never had a worker.  This module does: what a command of the batch system
says is kept, and the queue is looked at.  A job that has ended is replaced by a new one, so a sweep
may last longer than its jobs.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosim.errors import ClusterError, MissingTool, UsageError
from cosim.machine import interrupts

if TYPE_CHECKING:
    from distributed import Client

CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
"""The class of dask-jobqueue for each kind of batch system."""
WORKER_SETTINGS: Mapping[str, bool | float | str] = {
    # Rows are written, not kept, so there is nothing to spill.  A worker that goes over its limit
    # is ended, and its task is tried again.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Dask watches itself, and nobody looks at it.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
}
"""Settings of Dask that workers need."""
WORKER_ENVIRONMENT: Mapping[str, int] = {
    "MALLOC_TRIM_THRESHOLD_": 256 << 20,
    "MALLOC_MMAP_THRESHOLD_": 32 << 20,
}
"""Keeps memory of a task for the next one.  Dask lets malloc give it back to the host at once, and
to get it again, page by page, takes a tenth of a task's time."""
LOGS = "jobs"
"""The folder of the jobs' logs, in that of the sweep."""
_LISTING = {
    "slurm": ("squeue", "--noheader", "--format=%i", "--user"),
    "pbs": ("qselect", "-u"),
    "lsf": ("bjobs", "-w", "-u"),
    "sge": ("qstat", "-u"),
}
"""What lists a user's jobs that wait or run, but for the name of the user."""
_NO_JOB = "No unfinished job"
"""What LSF says if there are no such jobs; its command fails then."""
_LATE = {"lsf": 30.0}
"""Seconds in which the listing may lack a new job.  LSF may show what was there 10 s ago."""
_LOOK = 5.0
"""Seconds between two looks at the queue."""
_IN_VAIN = 3
"""How many more jobs than workers may end while no task does."""


def check_table(kind: str, table: Mapping[str, Any]) -> None:
    """Check the table ``[cluster]`` of a batch system, as far as that submits no job.

    :raises MissingTool: when dask-jobqueue, or the batch system's command, is not there.
    :raises UsageError: when a key is unknown or missing, or its value has the wrong type.
    """
    cluster = getattr(library("dask_jobqueue", "dask-jobqueue", kind), CLASSES[kind])
    import dask

    command = cluster.job_cls.submit_command.split()[0]
    if shutil.which(command) is None:
        raise MissingTool(
            f"[cluster]: kind = {kind!r} needs the command {command}, which is not in PATH; run "
            "cosim on a machine from which jobs can be submitted"
        )
    if "memory" not in table and dask.config.get(f"jobqueue.{kind}.memory", None) is None:
        raise UsageError(
            '[cluster]: memory is missing; say how much a job gets, as in memory = "4GB"'
        )
    if table.get("security", True) is True and not find_spec("cryptography"):
        raise MissingTool(
            "[cluster]: connections between machines are encrypted by default, and that needs "
            "cryptography, which is not installed; type `pip install cryptography`, or set "
            "security = false if everyone on that network may use your account"
        )
    of_cluster = set(inspect.signature(cluster).parameters)
    # A job of the library makes this folder.
    keys = {
        key: value
        for key, value in table.items()
        if key not in of_cluster | {"kind", "workers", "log_directory"}
    }
    try:
        cluster.job_cls("tcp://127.0.0.1:1", name="check", **{"cores": 1, "processes": 1, **keys})
    except (TypeError, ValueError, AttributeError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        what = f"{unknown[1]} is no key of {CLASSES[kind]}" if unknown else str(error)
        raise UsageError(f"[cluster]: {' '.join(what.split())}") from None


def worker_environment() -> dict[str, str]:
    """Return the variables that a worker of another machine needs in its environment."""
    settings = {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": str(value)
        for name, value in WORKER_SETTINGS.items()
    }
    return settings | {name: str(value) for name, value in WORKER_ENVIRONMENT.items()}


def library(module: str, package: str, kind: str) -> Any:
    """Import a library that starts workers.

    :raises MissingTool: when it is not installed.
    """
    # dask-jobqueue changes what Ctrl-C does when it is imported.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingTool(
            f"[cluster]: kind = {kind!r} needs {package}, which is not installed ({error}); "
            f"type `pip install {package}`"
        ) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class JobQueue:
    """Jobs that each run a worker.

    :param kind: a key of :data:`CLASSES`.
    :param table: the keyword arguments of that class.
    :param count: how many workers are wanted.
    :param folder: of the sweep, which all machines share.
    :param note: writes a line for the user.
    :raises UsageError: when the path of a folder that jobs need has a space.
    :raises ClusterError: when the scheduler for them cannot start.
    """

    patience = math.inf
    """New ones may wait for hours."""

    def __init__(
        self,
        kind: str,
        table: Mapping[str, Any],
        count: int,
        folder: Path,
        note: Callable[[str], None],
    ) -> None:
        self._kind = kind
        self._count = count
        self._note = note
        self._noted = False
        self._next_look = 0.0
        self._finished = 0
        self._ended = 0
        cluster = getattr(library("dask_jobqueue", "dask-jobqueue", kind), CLASSES[kind])
        prologue = [f"export {name}={value}" for name, value in worker_environment().items()]
        given = {
            "cores": 1,
            "processes": 1,
            "security": True,
            "log_directory": str(folder / LOGS),
            "shared_temp_directory": str(folder),
            **table,
            # A free port.
            "scheduler_options": {"dashboard_address": ":0", **table.get("scheduler_options", {})},
            "job_script_prologue": prologue + list(table.get("job_script_prologue", ())),
            "job_cls": _telling(cluster.job_cls),
        }
        for key in ("log_directory", "shared_temp_directory"):
            if re.search(r"\s", given[key]):
                raise UsageError(
                    f"[cluster]: {given[key]!r} has a space, which a job's script cannot have; "
                    f"name another folder with {key if key in table else '-o'}"
                )
        self.logs = given["log_directory"]
        """The folder of the jobs' logs."""
        import dask

        # The library would end the new job with the same name.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10000 days"})
        self.tasks: int = count * max(1, given["cores"] // given["processes"])
        """How many tasks all workers do at a time."""
        try:
            self.dask: Any = cluster(**given)
            """The cluster of Dask."""
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise ClusterError(
                f"[cluster]: {kind} cannot be used: {' '.join(str(error).split())}"
            ) from error

    def start(self, client: Client) -> None:
        """Submit the jobs, and wait for the first worker, which may take hours.

        :raises ClusterError: when no job is accepted, or the jobs end without a worker.
        """
        self.dask.scale(self._count)
        self._note(
            f"sweep: jobs for {self._count} workers are submitted; it begins with the first worker "
            f"(logs of the jobs: {self.logs})"
        )
        while True:
            with interrupts.allowed():
                try:
                    client.wait_for_workers(1, timeout=1)
                    return
                except TimeoutError:
                    pass
                except OSError as error:
                    raise ClusterError(f"the cluster of {self._kind} is gone ({error})") from error
            self.renew(0)

    def renew(self, finished: int) -> None:
        """Submit a new job for each that has ended, at most every few seconds.

        :param finished: how many tasks have finished so far.
        :raises ClusterError: when no job is accepted any more, or jobs end and no task does.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK
        if finished != self._finished:
            self._finished, self._ended = finished, 0
        # The library drops a job whose worker is lost, and submits it again only when told so.
        self.dask.scale(self._count)
        jobs = dict(self.dask.workers)
        if set(jobs) != set(self.dask.worker_spec):
            # Some are being submitted.
            return
        gone = self._ended_jobs(jobs)
        self._ended += len(gone)
        if self._ended > self._count + _IN_VAIN:
            raise ClusterError(
                f"[cluster]: {self._ended} jobs have ended and no task since; the logs are in "
                f"{self.logs}{_last_words(Path(self.logs))}"
            )
        refused = [name for name, job in jobs.items() if job.refusal]
        if refused:
            why = jobs[refused[0]].refusal
            if len(refused) == len(jobs):
                raise ClusterError(f"[cluster]: {self._kind} accepts no job: {why}")
            if not self._noted:
                self._note(f"cosim: {len(refused)} of {len(jobs)} jobs were refused: {why}")
                self._noted = True
            # One at a time: if there is a limit, most would be refused again.
            gone.append(refused[0])
        if gone:
            self.dask.sync(self._replace, {name: jobs[name] for name in gone})

    async def _replace(self, gone: Mapping[str, Any]) -> None:
        """Let the library forget these jobs, and submit new ones."""
        for name, job in gone.items():
            if self.dask.workers.get(name) is job:
                del self.dask.workers[name]
                await job.close()
        self.dask.scale(self._count)

    def _ended_jobs(self, jobs: Mapping[str, Any]) -> list[str]:
        """Return which of ``jobs`` have ended, as far as that is known."""
        if not jobs:
            return []
        try:
            words = [*_LISTING[self._kind], pwd.getpwuid(os.getuid()).pw_name]
            asked = subprocess.run(words, capture_output=True, text=True, timeout=30)
        except (KeyError, OSError, subprocess.TimeoutExpired):
            return []
        if asked.returncode != 0 and _NO_JOB not in asked.stderr:
            return []
        there = _listed(self._kind, asked.stdout)
        before = time.monotonic() - _LATE.get(self._kind, 0.0)
        return [
            name
            for name, job in jobs.items()
            if job.job_id and job.job_id not in there and job.submitted <= before
        ]


def _listed(kind: str, text: str) -> set[str]:
    """Return the numbers of the jobs that a listing has, but for jobs that will never run."""
    if kind in ("slurm", "pbs"):
        # PBS says the server, too, as in 12.server.
        return {word.partition(".")[0] for word in text.split()}
    # A line begins with the number, and lines that are no job's do not.
    lines = [line.split() for line in text.splitlines()]
    jobs = [line for line in lines if line and line[0].isdecimal()]
    # The fields of SGE are number, priority, name, user, state ...  A job in state E waits for an
    # administrator.
    return {job[0] for job in jobs if kind == "lsf" or "E" not in job[4]}


def _telling(job: Any) -> Any:
    """Return the class ``job`` of dask-jobqueue, such that it keeps why it was refused."""
    from distributed.core import Status

    async def start(self: Any) -> None:
        """Submit the job."""
        try:
            await job.start(self)
            self.submitted = time.monotonic()
        except (OSError, RuntimeError, ValueError) as error:
            self.refusal = reason(error)
            self.status = Status.running

    async def close(self: Any) -> None:
        """End the job."""
        await job.close(self)
        self.status = Status.closed

    async def submit(self: Any, script: str) -> Any:
        """Submit a job of LSF.  The library's method throws away why it is refused."""
        given = "<" if self.use_stdin else ""
        return await self._call([f"{self.submit_command} {given}{shlex.quote(script)}"], shell=True)

    changed = {"start": start, "close": close, "refusal": "", "submitted": math.inf}
    if job.config_name == "lsf":
        changed["_submit_job"] = submit
    return type(job.__name__, (job,), changed)


def _last_words(folder: Path) -> str:
    """Return the last line of the newest log that has one, for a message."""
    try:
        # SGE writes one log for each job, whose name has no "err".  LSF ends .out with a report.
        logs = [log for log in folder.iterdir() if log.suffix != ".out"]
        logs.sort(key=lambda log: log.stat().st_mtime, reverse=True)
        for log in logs[:6]:
            lines = log.read_text(errors="replace").split("\n")
            said = [line.strip() for line in lines if line.strip()]
            if said:
                return f", and one ends with: {said[-1][:200]}"
    except OSError:
        pass
    return ""


def reason(error: Exception) -> str:
    """Return what a command of the batch system said, in one line."""
    text = str(error)
    said = text.partition("stderr:\n")[2].strip() or text
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))
