"""Doing many runs one after the other, each once.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cosim.errors import CosimError, StorageError, UsageError
from cosim.files import write_atomically
from cosim.models.result import ResultDocument, backend_name, has_finding
from cosim.run.run_spec import RunSpec

Execute = Callable[[RunSpec, Path], ResultDocument]
"""Does one run, and leaves its files (trace, logs) in the folder given."""

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


def run(specs: Iterable[RunSpec], output: Path, execute: Execute) -> Iterator[RunOutcome]:
    """Do what is missing of ``specs``; yield the outcome of each run when it is known.

    If a run fails with a CosimError, the others are done all the same.

    :raises StorageError: when results cannot be kept.
    :raises UsageError: when a run's folder holds something else, or another process does runs in
        ``output``.
    """
    with sole(output):
        for spec in specs:
            yield _run_one(spec, output / spec.name, execute)


def _run_one(spec: RunSpec, folder: Path, execute: Execute) -> RunOutcome:
    # Through JSON, so that it can be compared with what was read back.
    asked = json.loads(json.dumps(spec.to_json()))
    state = _read_state(folder)
    if state is not None and state["status"] == "done" and _same(state["spec"], asked):
        return _outcome(spec.name, state, folder, earlier=True)
    _empty(folder, state)
    write_atomically(folder / _STATE, json.dumps({"spec": asked, "status": "running"}, indent=2))
    started = time.monotonic()
    state = {"spec": asked, "status": "done", "exit_status": 0, "error": None}
    try:
        result = execute(spec, folder)
    except CosimError as error:
        where = f" (log: {error.log})" if error.log else ""
        state.update(status="failed", exit_status=error.exit_status, error=f"{error}{where}")
    else:
        write_atomically(folder / RESULT, json.dumps(result, indent=2))
        state["exit_status"] = int(has_finding(result))
    state["seconds"] = round(time.monotonic() - started, 3)
    write_atomically(folder / _STATE, json.dumps(state, indent=2))
    return _outcome(spec.name, state, folder, earlier=False)


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


def _empty(folder: Path, state: dict[str, Any] | None) -> None:
    if state is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: holds other files; name another output folder")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
