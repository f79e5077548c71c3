"""What runs on a worker of the cluster: a greeting before the sweep starts, and the tasks.

A worker needs the same version of the tool, the traces, and the folder of the sweep, into which it
writes the rows itself.  So a task that is done stays done, whatever happens to the others, to the
scheduler, or to the command that started the sweep.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain, repeat
from pathlib import Path

from cosim.errors import CosimError, EnvironmentFault, StorageError, StorageSilent, TraceError
from cosim.sweep.feeding import feed
from cosim.sweep.result_files import write_rows
from cosim.sweep.row_schema import row
from cosim.sweep.task_plan import Task, code_version, open_trace, trace_checksum
from cosim.trace.locate import locate

_OUTAGE = 60.0
"""Seconds for which a task waits for object storage that does not answer (ours)."""
_PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds between its attempts (ours); the last one repeats."""


@dataclass(frozen=True)
class Greeting:
    """What a worker says of itself."""

    version: str
    """Of the tool."""
    code: str
    """The digest of the models' code."""
    sees_folder: bool
    """True if the folder of the sweep is the same one as the command's."""
    unseen: tuple[str, ...]
    """Why traces cannot be used here; empty if all can be."""


def greet(token: str, traces: Sequence[tuple[str, str]]) -> Greeting:
    """Return what this worker can do.

    :param token: a file that the command has put into the folder of the sweep.
    :param traces: place and checksum of each trace.
    """
    unseen = []
    for place, checksum in traces:
        try:
            if trace_checksum(open_trace(place)) != checksum:
                unseen.append(f"{locate(place)}: is another trace there")
        except (CosimError, OSError) as error:
            unseen.append(str(error))
    return Greeting(tool_version(), code_version(), Path(token).is_file(), tuple(unseen))


def tool_version() -> str:
    """Return the version of the tool that is installed here."""
    return metadata.version("lsp-cosim")


@dataclass(frozen=True)
class Failure:
    """Why a task, or one model of it, gave no rows."""

    what: str
    """The trace, and the model if it is about one."""
    why: str
    """One line."""
    exit_status: int
    details: str
    """The traceback."""
    rows: int
    """How many rows are missing for it."""
    shared: bool = False
    """True if the trace or a disk is to blame: other tasks will most likely meet the same."""


@dataclass(frozen=True)
class TaskReport:
    """How a task ended."""

    rows: int
    """Rows that it has written."""
    work: int
    """Events times models that were fed."""
    seconds: float
    failures: tuple[Failure, ...] = ()


def run_task(task: Task) -> TaskReport:
    """Do ``task``: one pass over its trace, and one file of results.

    Whatever goes wrong is in the report, since an error would have to cross between processes
    whose versions may differ.
    """
    started = time.perf_counter()
    try:
        return _insist(task, started)
    except Exception as error:
        failure = _failure(task.trace.name, error, task.rows)
        return TaskReport(0, 0, time.perf_counter() - started, (failure,))


def _insist(task: Task, started: float) -> TaskReport:
    """Do ``task``, and begin again if object storage goes away for a while.

    :raises StorageSilent: when it stays away.
    """
    until = None
    for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
        try:
            return _run(task, started)
        except StorageSilent:
            now = time.monotonic()
            until = until or now + _OUTAGE
            if now + pause > until:
                raise
            _sleep(pause)
    raise AssertionError("it repeats for ever")


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _run(task: Task, started: float) -> TaskReport:
    if code_version() != task.code:
        raise EnvironmentFault("this worker has another version of the tool than the sweep")
    trace = open_trace(task.place)
    if trace_checksum(trace) != task.trace.sha256:
        raise TraceError(f"{task.trace.path}: the trace has changed since the sweep began")
    fed = feed(trace, [one.replay for one in task.wanted])
    finished = datetime.now(UTC)
    rows = [
        row(
            key,
            task.trace,
            configuration,
            fed.results[index],
            version=task.version,
            code=task.code,
            finished=finished,
        )
        for index, one in enumerate(task.wanted)
        if index in fed.results
        for key, configuration in one.rows
    ]
    if rows:
        write_rows(Path(task.folder), task.name, rows)
    failures = tuple(
        _failure(
            f"{task.trace.name}, {task.wanted[index].replay.model}",
            error,
            len(task.wanted[index].rows),
        )
        for index, error in fed.failures.items()
    )
    work = fed.events * len(fed.results)
    return TaskReport(len(rows), work, time.perf_counter() - started, failures)


def _failure(what: str, error: BaseException, rows: int) -> Failure:
    text = "".join(traceback.format_exception(error))
    if isinstance(error, CosimError):
        shared = isinstance(error, StorageError | TraceError)
        return Failure(what, str(error), error.exit_status, text, rows, shared)
    why = f"{type(error).__name__}: {error}".partition("\n")[0]
    return Failure(what, why, 3, text, rows)
