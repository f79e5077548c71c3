"""Doing many runs, each once.

Every run has a folder ``OUTPUT/NAME``.  Its ``run.json`` says what was asked for and how the run
ended.  A run is done if ``run.json`` says so and the same is asked for now.  Otherwise (it never
started, failed, was killed, or something else is asked for) it starts again in an empty folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cosim.errors import CosimError, StorageError, UsageError, outside_fault
from cosim.files import write_atomically
from cosim.models.result import ResultDocument, backend_name, has_finding
from cosim.run.run_spec import RunSpec

Execute = Callable[[RunSpec, Path], ResultDocument]
"""Does one run, and leaves its files (trace, logs) in the folder given."""


@dataclass(frozen=True)
class Failed:
    """Why a run has no result."""

    why: str
    exit_status: int


Task = tuple[RunSpec, Path]
"""A run, and the empty folder for its files."""
Ended = tuple[RunSpec, ResultDocument | Failed]
"""A run, and how it ended."""
WorkOff = Callable[[Iterator[Task], int], Generator[Ended, None, None]]
"""Does so many tasks, one or several at a time, and yields each when it has ended, in no order.

It takes a task when it starts it.  If it is closed, it ends all runs that go on.
"""

_STATE = "run.json"
RESULT = "result.json"


@dataclass(frozen=True)
class RunOutcome:
    """How one run of a batch ended."""

    name: str
    status: Literal["done", "failed"]
    seconds: float
    earlier: bool
    """An earlier invocation did it."""
    exit_status: int
    """0, or 1 for a finding, or that of the error."""
    error: str | None
    result: Path | None
    """The result document."""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return {**vars(self), "result": None if self.result is None else str(self.result)}


def run(
    specs: Sequence[RunSpec],
    output: Path,
    work_off: WorkOff,
    tell: Callable[[RunOutcome], None],
) -> list[RunOutcome]:
    """Do what is missing of ``specs``; return the outcomes in the order of ``specs``.

    If a run fails, the others are done all the same.

    :param work_off: does the runs.
    :param tell: is told each outcome when it is known.
    :raises StorageError: when results cannot be kept.
    :raises UsageError: when a run's folder holds something else, or another process does runs in
        ``output``.  Then nothing was started.
    """
    started: dict[str, float] = {}

    def tasks() -> Iterator[Task]:
        for spec in missing:
            _begin(spec, output / spec.name)
            started[spec.name] = time.monotonic()
            yield spec, output / spec.name

    with sole(output):
        earlier = [done_earlier(spec, output / spec.name) for spec in specs]
        missing = [spec for spec, one in zip(specs, earlier, strict=True) if one is None]
        outcomes = {one.name: one for one in earlier if one is not None}
        for outcome in outcomes.values():
            tell(outcome)
        with closing(work_off(tasks(), len(missing))) as ended:
            for spec, result in ended:
                seconds = time.monotonic() - started[spec.name]
                outcomes[spec.name] = _keep(spec, output / spec.name, result, seconds)
                tell(outcomes[spec.name])
    return [outcomes[spec.name] for spec in specs]


def attempt(execute: Execute, spec: RunSpec, folder: Path) -> ResultDocument | Failed:
    """Do one run; return its result, or why it has none."""
    try:
        return execute(spec, folder)
    except CosimError as error:
        where = f" (log: {error.log})" if error.log else ""
        return Failed(f"{error}{where}", error.exit_status)
    except (OSError, MemoryError) as error:
        fault = outside_fault(error)
        return Failed(str(fault), fault.exit_status)


def in_turn(execute: Execute) -> WorkOff:
    """Return what does one run after the other, in this process."""

    def work_off(tasks: Iterator[Task], count: int) -> Generator[Ended, None, None]:
        for spec, folder in tasks:
            yield spec, attempt(execute, spec, folder)

    return work_off


def _asked(spec: RunSpec) -> dict[str, Any]:
    """Return ``spec`` as it is read back from JSON."""
    asked: dict[str, Any] = json.loads(json.dumps(spec.to_json()))
    return asked


def done_earlier(spec: RunSpec, folder: Path) -> RunOutcome | None:
    """Return how ``spec`` ended if an earlier invocation did it; None if it is to be done.

    :param folder: of the run.
    :raises UsageError: when ``folder`` holds something else.
    """
    state = _read_state(folder)
    if state is not None and state["status"] == "done" and _same(state["spec"], _asked(spec)):
        return _outcome(spec.name, state, folder, earlier=True)
    if state is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: holds other files; name another output folder")
    return None


def _begin(spec: RunSpec, folder: Path) -> None:
    """Empty ``folder``, and note there what is done in it now.

    :raises StorageError: when it cannot be written.
    """
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
    _write_state(folder, {"spec": _asked(spec), "status": "running"})


def _keep(
    spec: RunSpec, folder: Path, result: ResultDocument | Failed, seconds: float
) -> RunOutcome:
    """Write how a run ended to its folder.

    :raises StorageError: when it cannot be written.
    """
    state = {"spec": _asked(spec), "status": "done", "exit_status": 0, "error": None}
    if isinstance(result, Failed):
        state.update(status="failed", exit_status=result.exit_status, error=result.why)
    else:
        write_atomically(folder / RESULT, json.dumps(result, indent=2))
        state["exit_status"] = int(has_finding(result))
    state["seconds"] = round(seconds, 3)
    _write_state(folder, state)
    return _outcome(spec.name, state, folder, earlier=False)


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    write_atomically(folder / _STATE, json.dumps(state, indent=2))


@contextmanager
def sole(output: Path) -> Iterator[None]:
    """Hold the folder ``output``, made if needed: two batches in it would undo each other's runs.

    :raises StorageError: when it cannot be written.
    :raises UsageError: when another process holds it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        folder = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"{output}: another cosim process is doing runs there") from None
    finally:
        os.close(folder)


def _outcome(name: str, state: dict[str, Any], folder: Path, *, earlier: bool) -> RunOutcome:
    done = state["status"] == "done"
    return RunOutcome(
        name=name,
        status="done" if done else "failed",
        seconds=state["seconds"],
        earlier=earlier,
        exit_status=state["exit_status"],
        error=state["error"],
        result=folder / RESULT if done else None,
    )


def _same(earlier: Any, asked: dict[str, Any]) -> bool:
    """Return True if ``earlier`` is the run ``asked`` for; older versions wrote options not set."""
    if not isinstance(earlier, dict):
        return False
    written = {key: value for key, value in earlier.items() if value is not None}
    if "backend" in written:
        written["backend"] = backend_name(written["backend"])
    return written == {key: value for key, value in asked.items() if value is not None}


def _read_state(folder: Path) -> dict[str, Any] | None:
    try:
        state: Any = json.loads((folder / _STATE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {"spec": None, "status": "unknown"}
    if not isinstance(state, dict) or not {"spec", "status"} <= state.keys():
        return {"spec": None, "status": "unknown"}
    if state["status"] == "done" and not (folder / RESULT).is_file():
        return {**state, "status": "unknown"}
    return state
