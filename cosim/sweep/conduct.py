"""A sweep from its file to its table: captures, plan, tasks, and what is said of them."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cosim import paths
from cosim.errors import ClusterError, CosimError, StorageError, UsageError
from cosim.files import write_atomically
from cosim.machine import host_memory, interrupts
from cosim.models.model_options import compile_models
from cosim.output import Step
from cosim.run import batch
from cosim.run.batch import RunOutcome, WorkOff
from cosim.run.plan import TOOL_BYTES, resolve
from cosim.run.run_spec import RunSpec
from cosim.sweep import result_files, task_plan
from cosim.sweep.cluster import (
    Cluster,
    Wish,
    check_table,
    expected_size,
    local_workers,
    opened,
)
from cosim.sweep.engine import Finished, work_off
from cosim.sweep.result_files import CAPTURES, FAILURES
from cosim.sweep.sweep_file import SweepFile
from cosim.sweep.task_plan import SweptTrace, TaskPlan, make_plan, models_that_fit
from cosim.sweep.worker import Failure, tool_version

FORMAT = "lsp-cosim-sweep"
VERSION = 1

_START = 5.0
"""Seconds in which workers start and load the models' code."""
_SHOWN = 10
"""Reasons for failures that are reported while the sweep goes on."""
_PROCESSORS = 2
"""What a capture keeps busy: QEMU, and what reads its events."""
_UNKNOWN_RAM = 1 << 30
"""Bytes of RAM of a guest that is not made yet, for the number of captures at a time (ours)."""
_IN_A_ROW = 3
"""Tasks over one trace that fail because of it, one after the other, before the others are left
(ours)."""
_MEASURED = 20_000_000
"""Events times models after which the rate of a sweep says something: before, starting counts."""

Note = Callable[[str], None]


@dataclass
class Outcome:
    """How a sweep ended."""

    folder: Path
    rows: int = 0
    """Rows that the file asks for, over the traces that are there; 0 until these are known."""
    done_already: int = 0
    done: int = 0
    """Rows that this invocation has added."""
    tasks: int = 0
    tasks_done: int = 0
    """Tasks that have ended, those that failed, too."""
    tasks_failed: int = 0
    seconds: float = 0.0
    work: int = 0
    """Events times models that this invocation has fed."""
    workers: int = 0
    failures: list[Failure] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    """Traces whose last tasks were not started, because the ones before them failed."""
    captures: list[RunOutcome] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0 if all rows are there, else that of the worst failure."""
        states = [failure.exit_status for failure in self.failures]
        states += [one.exit_status for one in self.captures if one.error]
        return max(states, default=0)

    @property
    def missing(self) -> int:
        """How many rows are not there."""
        return self.rows - self.done_already - self.done

    @property
    def kept(self) -> str:
        """How many rows are there, in words."""
        return f"{self.done_already + self.done:,} of {self.rows:,} rows"

    def to_json(self) -> dict[str, Any]:
        """Return the outcome for JSON."""
        return {
            "folder": str(self.folder),
            "rows": self.rows,
            "done_already": self.done_already,
            "done": self.done,
            "missing": self.missing,
            "tasks": self.tasks,
            "tasks_done": self.tasks_done,
            "tasks_failed": self.tasks_failed,
            "seconds": round(self.seconds, 3),
            "workers": self.workers,
            "model_events_per_second": round(self.work / self.seconds) if self.seconds else None,
            "failures": [
                {"what": one.what, "why": one.why, "rows": one.rows} for one in self.failures
            ],
            "traces_given_up": self.given_up,
            "captures": [one.to_json() for one in self.captures],
        }


@dataclass(frozen=True)
class Conducting:
    """How a sweep is done."""

    wish: Wish
    captures: Callable[[int], WorkOff]
    """Returns what does that many captures at a time."""
    note: Note
    """Writes a line for the user."""


def sweep(
    asked: SweepFile,
    folder: Path,
    how: Conducting,
    show: Callable[[str], Any],
) -> Outcome:
    """Do what is missing of the sweep that ``asked`` describes.

    :param folder: of the sweep.
    :param show: opens a progress bar with that title, as :func:`cosim.output.progress`.
    :raises UsageError: when another process does runs in ``folder``, or as for :func:`look`.
    :raises ClusterError: when there are no workers that can do it.
    """
    check_table(asked.cluster)
    with batch.sole(folder):
        before = result_files.read_state(folder)
        _, missing = _there(asked, folder, before)
        result_files.prepare(folder)
        code = task_plan.code_version()
        state = _state(asked, before, code)
        state["status"] = result_files.CAPTURING if missing else result_files.RUNNING
        outcome = Outcome(folder)
        with _recorded(folder, state, outcome, how.note):
            outcome.captures = _capture(asked, folder, how)
            outcome.failures += _lost_captures(outcome.captures)
            traces = _traces(asked, folder, [one.name for one in outcome.captures if one.error])
            _check_traces(traces, before, folder)
            done, aside = result_files.done_keys(folder, code)
            if aside:
                how.note(
                    f"cosim: {aside} files of results are from another version of the models; they "
                    f"are now in {folder / result_files.SUPERSEDED}"
                )
            state |= {"status": result_files.RUNNING, **_inputs(asked, traces)}
            result_files.write_state(folder, state)
            plan = _plan(asked, folder, traces, done, code, workers=1)
            outcome.rows, outcome.done_already = plan.rows, plan.done
            if plan.tasks:
                _work(asked, folder, how, show, traces, done, code, outcome)
    return outcome


@contextmanager
def _recorded(folder: Path, state: dict[str, Any], outcome: Outcome, note: Note) -> Iterator[None]:
    """Let ``sweep.json`` say that the sweep goes on, and then how it ended, whatever ended it.

    :param state: is written now and at the end, with the status and the outcome of the end.
    """
    # No signal may come between the end of the sweep and its status.
    with interrupts.deferred():
        result_files.write_state(folder, state)
        try:
            with interrupts.allowed():
                yield
            state["status"] = "failed" if outcome.missing or outcome.exit_status else "done"
        except KeyboardInterrupt:
            state["status"] = "interrupted"
            what = "captures that are done are kept"
            if outcome.rows:
                what = f"{outcome.kept} are there"
            note(f"cosim: {what}; the same command goes on")
            raise
        except Exception as error:
            state["status"] = f"failed: {error}"
            if isinstance(error, ClusterError) and outcome.tasks_done:
                raise ClusterError(
                    f"{error}; {outcome.kept} are done and kept; the same command does the others"
                ) from error
            raise
        finally:
            _write_outcome(folder, state, outcome, note)


def _write_outcome(folder: Path, state: dict[str, Any], outcome: Outcome, note: Note) -> None:
    """Write how the sweep went.  That this fails must not hide how it went."""
    if outcome.rows or outcome.captures:
        state["outcome"] = outcome.to_json()
    try:
        result_files.write_state(folder, state)
    except StorageError as error:
        note(f"cosim: {error}")
        outcome.failures.append(Failure("the sweep", str(error), error.exit_status, "", 0))


@dataclass(frozen=True)
class Outlook:
    """What a sweep would do."""

    plan: TaskPlan
    """Over the traces that are there."""
    missing: list[str]
    """Captures that are not there yet."""
    workers: int | None
    """How many it would start; None if a scheduler has them."""

    @property
    def seconds(self) -> float | None:
        """How long the tasks would take; None if that is not known, or there are none."""
        if self.missing or not self.plan.tasks:
            return None
        return expected_seconds(self.plan.work, self.workers or 1)


def look(asked: SweepFile, folder: Path, wish: Wish) -> Outlook:
    """Return what the sweep would do; change nothing.

    :raises UsageError: when the sweep would be refused: a trace of the file cannot be read, a trace
        has changed, a capture is asked for in another way, or ``folder`` holds something else.
    """
    check_table(asked.cluster)
    traces, missing = _there(asked, folder, result_files.read_state(folder))
    code = task_plan.code_version()
    done = result_files.known_keys(folder, code)
    size = expected_size(_wish(wish, asked))
    workers, memory = (1, None) if size is None else (size.tasks, size.memory)
    fit = models_that_fit(memory)
    plan = _plan(asked, folder, traces, done, code, workers=workers, fit=fit)
    return Outlook(plan, missing, None if size is None else workers)


def expected_seconds(work: int, workers: int) -> float | None:
    """Return about how long ``work`` takes on so many workers; None if no rate was recorded.

    :param work: events times models.
    """
    rate = _rates().get(socket.gethostname())
    return _START + work / rate / workers if rate else None


def _plan(
    asked: SweepFile,
    folder: Path,
    traces: list[SweptTrace],
    done: set[str],
    code: str,
    *,
    workers: int,
    fit: int = 1 << 30,
) -> TaskPlan:
    return make_plan(
        folder.resolve(),
        traces,
        asked.configurations,
        done,
        code=code,
        version=tool_version(),
        workers=workers,
        most=min(asked.per_task, fit),
    )


def _captured(folder: Path, name: str) -> Path:
    return folder.resolve() / CAPTURES / name / "trace"


def _there(
    asked: SweepFile, folder: Path, before: dict[str, Any]
) -> tuple[list[SweptTrace], list[str]]:
    """Return the traces that are there, and the names of the captures that are not; change nothing.

    :param before: the state that the last invocation left.
    :raises UsageError: when the sweep is refused, as by :func:`look`.
    """
    result_files.check_folder(folder)
    _check_captures(asked, before, folder)
    missing = [
        spec.name
        for spec in _to_capture(asked)
        if batch.done_earlier(spec, folder / CAPTURES / spec.name) is None
    ]
    traces = _traces(asked, folder, missing)
    _check_traces(traces, before, folder)
    return traces, missing


def _to_capture(asked: SweepFile) -> list[RunSpec]:
    return [replace(spec, trace=True) for spec in asked.captures.runs] if asked.captures else []


def _check_captures(asked: SweepFile, before: dict[str, Any], folder: Path) -> None:
    """Check that no capture is asked for in another way than in the sweep that is in ``folder``.

    :raises UsageError: when one is: its trace would change under its name.
    """
    known = before.get("captures", {})
    for spec in asked.captures.runs if asked.captures else ():
        if spec.name in known and known[spec.name] != _plain(spec.to_json()):
            raise UsageError(
                f"{folder}: holds a sweep over another capture named {spec.name}; name another "
                "folder with -o, or give the run another name"
            )


def _capture(asked: SweepFile, folder: Path, how: Conducting) -> list[RunOutcome]:
    specs = _to_capture(asked)
    if not specs:
        return []

    def tell(outcome: RunOutcome) -> None:
        if outcome.error:
            how.note(f"cosim: capture {outcome.name} failed: {outcome.error}")
        elif not outcome.earlier:
            how.note(f"captured {outcome.name} in {outcome.seconds:.1f} s")

    jobs = captures_at_once(specs, _wish(how.wish, asked))
    return batch.run(specs, folder / CAPTURES, how.captures(jobs), tell)


def captures_at_once(specs: Sequence[RunSpec], wish: Wish) -> int:
    """Return how many captures this machine carries at a time.

    There are no more than local workers, and each has two processors and the memory that it may
    need.
    """
    processors = len(os.sched_getaffinity(0))
    bounds = [local_workers(wish) or processors, processors // _PROCESSORS]
    free = host_memory.available()
    if free is not None:
        bounds.append(free.size // max(map(_memory_needed, specs)))
    return max(1, min(bounds))


def _memory_needed(spec: RunSpec) -> int:
    """Return how many bytes of this machine's memory the capture of ``spec`` may need."""
    try:
        return resolve(spec).memory_needed
    except CosimError:
        # Its guest is not made yet, or the capture will say what is wrong.
        return _UNKNOWN_RAM + TOOL_BYTES


def _lost_captures(captures: list[RunOutcome]) -> Iterator[Failure]:
    for one in captures:
        if one.error:
            yield Failure(f"capture {one.name}", one.error, one.exit_status, one.error, 0)


def _traces(asked: SweepFile, folder: Path, missing: Sequence[str]) -> list[SweptTrace]:
    """Return the traces of the file, without the captures that are ``missing``."""
    traces = []
    for spec in asked.captures.runs if asked.captures else ():
        if spec.name not in missing:
            said = {key: _text(value) for key, value in _plain(spec.to_json()).items()}
            wanted = {key: text for key, text in said.items() if text is not None}
            path = str(_captured(folder, spec.name))
            traces.append(SweptTrace.read(spec.name, path, wanted))
    return traces + [SweptTrace.read(name, path) for name, path in asked.traces.items()]


def _plain(document: Any) -> Any:
    return json.loads(json.dumps(document))


def _text(value: Any) -> str | None:
    """Return what a capture's key was set to, as text; None if it was not set."""
    if value in (None, [], {}, False):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _check_traces(traces: list[SweptTrace], before: dict[str, Any], folder: Path) -> None:
    known = before.get("traces", {})
    for trace in traces:
        facts = trace.facts
        earlier = known.get(facts.name, {}).get("sha256")
        if earlier not in (None, facts.sha256):
            raise UsageError(
                f"{facts.path}: this is not the trace {facts.name} that the sweep in {folder} "
                "began with; name another folder with -o, or give the trace another name"
            )


def _state(asked: SweepFile, before: dict[str, Any], code: str) -> dict[str, Any]:
    """Return what is known before the captures are done; ``before`` tells of the traces so far."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "written_by": tool_version(),
        "code": code,
        "file": str(asked.path),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "traces": before.get("traces", {}),
        "captures": before.get("captures", {}),
        "configurations": len(asked.configurations),
        "varied": list(asked.varied),
    }


def _inputs(asked: SweepFile, traces: list[SweptTrace]) -> dict[str, Any]:
    captures = asked.captures.runs if asked.captures else ()
    return {
        "traces": {
            trace.facts.name: {
                "path": trace.facts.path,
                "sha256": trace.facts.sha256,
                "events": trace.facts.events,
            }
            for trace in traces
        },
        "captures": {spec.name: _plain(spec.to_json()) for spec in captures},
    }


def _work(
    asked: SweepFile,
    folder: Path,
    how: Conducting,
    show: Callable[[str], Any],
    traces: list[SweptTrace],
    done: set[str],
    code: str,
    outcome: Outcome,
) -> None:
    """Do all tasks, and keep ``outcome`` up to date."""
    _compile(asked, traces)
    with (
        result_files.scratch(folder) as scratch,
        opened(_wish(how.wish, asked), scratch, how.note) as cluster,
    ):
        size = cluster.size()
        plan = _plan(
            asked,
            folder,
            traces,
            done,
            code,
            workers=size.tasks,
            fit=models_that_fit(size.memory),
        )
        outcome.tasks, outcome.workers = len(plan.tasks), size.tasks
        used = [(one.place, one.facts.sha256) for one in plan.traces]
        cluster.check(folder.resolve(), used, code)
        _announce(plan, cluster, size.tasks, how.note)
        started = time.monotonic()
        with show("sweep") as step:
            failures = _Failures(folder, outcome, how.note)
            for finished in work_off(cluster, plan.tasks, given_up=outcome.given_up):
                outcome.tasks_done += 1
                outcome.done += finished.report.rows
                outcome.work += finished.report.work
                outcome.seconds = time.monotonic() - started
                failures.take(finished)
                _tell(step, outcome, plan)
        outcome.seconds = time.monotonic() - started
        _record(outcome)


def _wish(wish: Wish, asked: SweepFile) -> Wish:
    return replace(wish, table=asked.cluster)


def _compile(asked: SweepFile, traces: list[SweptTrace]) -> None:
    """Compile the kernels once, or each worker would."""
    models = list(dict.fromkeys(one.policy for one in asked.configurations))
    compile_models(task_plan.open_trace(traces[0].place).origin, models)


def _announce(plan: TaskPlan, cluster: Cluster, workers: int, note: Note) -> None:
    seconds = expected_seconds(plan.work, workers)
    took = "the first tasks will tell how long it takes"
    if seconds is not None:
        took = f"about {duration(seconds)}"
    note(
        f"sweep: traces: {len(plan.traces)}; rows: {plan.rows:,}, {plan.done:,} done already; "
        f"tasks: {len(plan.tasks):,}; workers: {workers}, of {cluster.where}; {took}"
    )
    if cluster.dashboard:
        note(f"dashboard: {cluster.dashboard}")


def duration(seconds: float) -> str:
    """Return a time in words, as far as it can be foretold."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _tell(step: Step, outcome: Outcome, plan: TaskPlan) -> None:
    rate = outcome.done / outcome.seconds if outcome.seconds else 0
    text = f"sweep: {outcome.tasks_done}/{outcome.tasks} tasks, {rate:.1f} rows/s"
    if outcome.tasks_failed:
        text += f", {outcome.tasks_failed} failed"
    step(outcome.done, plan.rows - plan.done, text)


class _Failures:
    """Keeps the failures of tasks, says each reason once, and gives up a trace that is lost."""

    def __init__(self, folder: Path, outcome: Outcome, note: Note) -> None:
        self._folder = folder
        self._outcome = outcome
        self._note = note
        self._said: set[str] = set()
        self._row: dict[str, int] = {}

    def take(self, finished: Finished) -> None:
        """Note how a task ended."""
        task, failures = finished.task, finished.report.failures
        self._outcome.tasks_failed += bool(failures)
        for failure in failures:
            self._outcome.failures.append(failure)
            self._say(failure, self._keep(failure, task.name))
        name = task.trace.name
        lost = any(failure.shared for failure in failures)
        self._row[name] = self._row.get(name, 0) + 1 if lost else 0
        if self._row[name] == _IN_A_ROW and name not in self._outcome.given_up:
            self._outcome.given_up.append(name)
            self._note(
                f"cosim: {name}: {_IN_A_ROW} tasks in a row failed because of the trace or a disk; "
                "its other tasks are not started. The same command tries them again"
            )

    def _keep(self, failure: Failure, name: str) -> str:
        """Write the log of ``failure``; return what to say of it."""
        path = self._folder / FAILURES / f"{name}.log"
        try:
            with path.open("a") as file:
                file.write(f"{failure.what}\n{failure.details}\n")
        except OSError as error:
            return f"its log cannot be written: {error.strerror}"
        return f"log: {path}"

    def _say(self, failure: Failure, log: str) -> None:
        if failure.why in self._said:
            return
        self._said.add(failure.why)
        if len(self._said) <= _SHOWN:
            self._note(f"cosim: {failure.what}: {failure.why} ({log})")
        elif len(self._said) == _SHOWN + 1:
            self._note(f"cosim: further failures are only in {self._folder / FAILURES}")


def _rates_file() -> Path:
    return paths.cache() / "sweep-rates.json"


def _rates() -> dict[str, float]:
    try:
        found = json.loads(_rates_file().read_bytes())
        return {name: float(rate) for name, rate in found.items() if float(rate) > 0}
    except (OSError, ValueError, AttributeError, StorageError):
        return {}


def _record(outcome: Outcome) -> None:
    """Remember how fast a worker was here; the next sweep says from it how long it will take."""
    if outcome.work < _MEASURED:
        return
    rates = _rates()
    rates[socket.gethostname()] = outcome.work / outcome.seconds / outcome.workers
    try:
        _rates_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_rates_file(), json.dumps(rates, indent=2))
    except (OSError, StorageError):
        # A cache that cannot be written costs only the estimate.
        return


@contextmanager
def silent(title: str) -> Iterator[Step]:
    """Yield a step that tells nobody."""

    def step(done: float, total: float | None = None, text: str | None = None) -> None:
        """Tell nobody."""

    yield step
