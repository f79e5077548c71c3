"""From traces and configurations to tasks: what is missing, and who reads a trace together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from cosim.run.code_digest import digest
from cosim.sweep.feeding import Replay
from cosim.sweep.grid import Configuration, Json, row_key
from cosim.sweep.row_schema import TraceFacts
from cosim.trace.locate import locate
from cosim.trace.reader import TraceReader
from hypervisor_model.policies import MachineModel, replace_fields

_COUNTED_BY = (
    "hypervisor_model",
    "cosim.models.comparison",
    "cosim.models.derived",
    "cosim.sweep.feeding",
    "cosim.sweep.row_schema",
    "cosim.trace.schema",
)
"""The code that a row depends on."""

TASK_BYTES = 400 << 20
"""About how much memory a task needs beside its models: the interpreter with the libraries, a
segment of the trace, and the judge (ours, measured with the boot of ``linux``)."""
MODEL_BYTES = 64 << 20
"""About how much memory each model adds, at most (ours, measured likewise)."""
_TASKS_PER_WORKER = 4
"""Tasks that each worker gets at least, if there are enough replays: the last ones end together."""


_ONE_AT_A_TIME = Lock()


def code_version() -> str:
    """Return the digest of the code that the counts of a sweep depend on."""
    # Two threads of a worker may ask at once, and Python 3.11 fails if two threads parse.
    with _ONE_AT_A_TIME:
        return digest(_COUNTED_BY, ("cosim",))[:32]


def open_trace(place: str) -> TraceReader:
    """Return the trace in the folder or at the URI ``place``.

    :raises TraceError: when there is no trace that can be read.
    :raises StorageError: when object storage does not give it.
    """
    return TraceReader(locate(place))


def trace_checksum(trace: TraceReader) -> str:
    """Return the SHA-256 of all that a trace says, its events by the checksums of the segments."""
    said = [
        trace.version,
        trace.origin.to_json(),
        trace.ending.to_json(),
        [[segment.events, segment.sha256] for segment in trace.segments],
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SweptTrace:
    """One trace of a sweep."""

    facts: TraceFacts
    machine: MachineModel
    """The machine of the capture."""
    place: str
    """Where it is, as the user wrote it.  It may hold credentials, so it is never shown or kept;
    ``facts.path`` says the same without them."""

    @classmethod
    def read(cls, name: str, place: str, capture: Mapping[str, str] | None = None) -> SweptTrace:
        """Return what the trace at ``place`` says of itself.

        :param capture: what the sweep's file asked for, if it captured the trace.
        :raises TraceError: when there is no trace that can be read.
        :raises StorageError: when object storage does not give it.
        """
        trace = open_trace(place)
        origin = trace.origin
        facts = TraceFacts(
            name=name,
            path=str(locate(place)),
            sha256=trace_checksum(trace),
            complete=trace.ending.complete,
            events=trace.events,
            guest=origin.guest,
            backend=origin.backend,
            accesses=origin.stream.accesses,
            filter=origin.stream.filter,
            harts=origin.machine.harts,
            capture=capture or {},
        )
        return cls(facts, origin.machine, place)

    def key(self, one: Configuration, code: str) -> str:
        """Return the key of the row of ``one`` over this trace."""
        machine = replace_fields(self.machine, one.machine).to_json()
        # Two names may be given to equal traces.
        return row_key(f"{self.facts.name} {self.facts.sha256}", machine, one, code)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One replay, and the rows that are made of it: one for each cost table."""

    replay: Replay
    rows: tuple[tuple[str, Configuration], ...]
    """The key of each row, and its configuration."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does in one go: a pass over one trace."""

    folder: str
    """Of the sweep."""
    trace: TraceFacts
    place: str
    """Of the trace, as :attr:`SweptTrace.place`."""
    wanted: tuple[Wanted, ...]
    code: str
    """The digest that the worker's code must have."""
    version: str
    """Of the tool."""

    @property
    def rows(self) -> int:
        """How many rows it makes."""
        return sum(len(one.rows) for one in self.wanted)

    @property
    def work(self) -> int:
        """Events times models."""
        return self.trace.events * len(self.wanted)

    @property
    def name(self) -> str:
        """The name of its file of results, which follows from its rows."""
        keys = [key for one in self.wanted for key, _ in one.rows]
        return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class TaskPlan:
    """All tasks that are missing."""

    tasks: tuple[Task, ...]
    rows: int
    """Rows of the whole sweep, over the traces that are there."""
    done: int
    """Rows that are done already."""
    traces: tuple[SweptTrace, ...] = field(default=())

    @property
    def work(self) -> int:
        """Events times models, of the missing tasks."""
        return sum(task.work for task in self.tasks)


def make_plan(
    folder: Path,
    traces: Sequence[SweptTrace],
    configurations: Sequence[Configuration],
    done: set[str],
    *,
    code: str,
    version: str,
    workers: int,
    most: int,
) -> TaskPlan:
    """Return the tasks that are missing, the longest first.

    :param folder: of the sweep.
    :param done: the keys of the rows that are there.
    :param workers: how many tasks run at a time.
    :param most: replays that share a task, at most.
    """
    missing: list[tuple[SweptTrace, list[Wanted]]] = []
    rows = 0
    there = 0
    for trace in traces:
        wanted = list(_wanted(trace, configurations, done, code))
        keys = len(configurations)
        rows += keys
        there += keys - sum(len(one.rows) for one in wanted)
        missing.append((trace, wanted))
    replays = sum(len(wanted) for _, wanted in missing)
    together = max(1, min(most, -(-replays // (workers * _TASKS_PER_WORKER))))
    tasks = [
        Task(str(folder), trace.facts, trace.place, part, code, version)
        for trace, wanted in missing
        for part in _parts(wanted, together)
    ]
    tasks.sort(key=lambda task: -task.work)
    return TaskPlan(tuple(tasks), rows, there, tuple(traces))


def models_that_fit(memory: int | None) -> int:
    """Return how many models a task may have on a worker with so much memory.

    :param memory: bytes; None if it is not known, or not limited.
    """
    if memory is None:
        return 1 << 30
    return max(1, (memory * 3 // 4 - TASK_BYTES) // MODEL_BYTES)


def _wanted(
    trace: SweptTrace, configurations: Iterable[Configuration], done: set[str], code: str
) -> Iterator[Wanted]:
    groups: dict[tuple[str, str], list[tuple[str, Configuration]]] = {}
    for one in configurations:
        key = trace.key(one, code)
        if key not in done:
            groups.setdefault(one.replayed, []).append((key, one))
    for rows in groups.values():
        first = rows[0][1]
        yield Wanted(Replay(first.model, first.machine), tuple(rows))


def _parts(wanted: Sequence[Wanted], together: int) -> Iterator[tuple[Wanted, ...]]:
    """Yield parts of almost equal size, none larger than ``together``."""
    count = -(-len(wanted) // together)
    for part in range(count):
        yield tuple(wanted[part::count])


def describe(plan: TaskPlan) -> Json:
    """Return the size of ``plan``, for JSON."""
    return {
        "traces": len(plan.traces),
        "rows": plan.rows,
        "done_already": plan.done,
        "tasks": len(plan.tasks),
        "work": plan.work,
    }
