"""The folder of a sweep: what is in it, and who may write it.

::

    DIR/
      sweep.json          what the last invocation asked for: traces, parameters, how it went
      results/*.parquet   one file for each finished task; all have the columns of row_schema
      superseded/         files of results that another version of the models made
      failures/*.log      why tasks failed, of the last invocation
      captures/NAME/      the traces that the sweep captured, as `cosim capture FILE` leaves them
      scratch/            of the local cluster, while it runs

A file of results is written under another name and then renamed, so that a reader of the folder
sees whole files only, at any time.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cosim.errors import StorageError, UsageError
from cosim.files import write_atomically, writing
from cosim.sweep.row_schema import SCHEMA, Row
from cosim.sweep.state_file import NAME as STATE
from cosim.sweep.state_file import is_sweep

RESULTS = "results"
SUPERSEDED = "superseded"
FAILURES = "failures"
CAPTURES = "captures"
SCRATCH = "scratch"
CAPTURING = "capturing"
"""The status of a sweep while it captures its traces."""
RUNNING = "running"
"""Its status while it replays."""


def write_rows(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write ``rows`` as the file ``name`` of results, whole or not at all.

    :param folder: of the sweep.
    :raises StorageError: when the file cannot be written.
    """
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    try:
        with writing(folder / RESULTS / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
    except StorageError as error:
        # Without the file's name: a full disk is one reason, however many tasks meet it.
        why = getattr(error.__cause__, "strerror", None) or "an error of the disk"
        raise StorageError(f"{folder / RESULTS}: cannot be written ({why})") from error


def check_folder(folder: Path) -> None:
    """Check that a sweep may use ``folder``.

    :raises UsageError: when a folder is there that no sweep has made: its files would be removed.
    """
    if not is_sweep(folder):
        for name in (RESULTS, SUPERSEDED, FAILURES, SCRATCH):
            if os.path.lexists(folder / name) and not _empty(folder / name):
                raise UsageError(
                    f"{folder}: is not the folder of a sweep, but has something named {name}; name "
                    "another folder with -o"
                )


def prepare(folder: Path) -> None:
    """Make the folders of the sweep, and remove what an interrupted invocation left half done.

    Call it while no other invocation uses the folder, after :func:`check_folder`.

    :raises StorageError: when ``folder`` cannot be written.
    """
    try:
        shutil.rmtree(folder / FAILURES, ignore_errors=True)
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
        for name in (RESULTS, FAILURES):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for part in (folder / RESULTS).glob(".*.part"):
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder for files of local workers; it is removed at the end of the context.

    :param folder: of the sweep.
    :raises StorageError: when it cannot be made.
    """
    path = folder.resolve() / SCRATCH
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made ({error.strerror})") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False


def files_of(folder: Path) -> list[str]:
    """Return the files of results that are there now, by name; each is whole.

    :raises UsageError: when there are none, or one is damaged.
    """
    files = sorted(str(file) for file in (folder / RESULTS).glob("*.parquet"))
    if not files:
        raise UsageError(f"{folder}: the sweep has no results yet")
    for file in files:
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{file}: is damaged ({error}); remove it and sweep again") from error
    return files


def known_keys(folder: Path, code: str) -> set[str]:
    """Return the keys of the rows that are there, made by the models' code with digest ``code``."""
    keys: set[str] = set()
    for path in (folder / RESULTS).glob("*.parquet"):
        keys.update(_keys(path, code) or ())
    return keys


def done_keys(folder: Path, code: str) -> tuple[set[str], int]:
    """Return what :func:`known_keys` does, and how many files were set aside.

    A file that another version of the models made, or that cannot be read, goes to ``superseded``,
    so that the files left in ``results`` are one table.

    :raises StorageError: when a file cannot be moved.
    """
    keys: set[str] = set()
    aside = 0
    for path in sorted((folder / RESULTS).glob("*.parquet")):
        found = _keys(path, code)
        if found is not None:
            keys.update(found)
            continue
        aside += 1
        try:
            (folder / SUPERSEDED).mkdir(exist_ok=True)
            path.replace(folder / SUPERSEDED / path.name)
        except OSError as error:
            raise StorageError(f"{path}: cannot be moved ({error.strerror})") from error
    return keys, aside


def _keys(path: Path, code: str) -> list[str] | None:
    """Return the keys in a file of results; None if it is not one that fits ``code``."""
    try:
        file = pq.ParquetFile(path)
        if not file.schema_arrow.equals(SCHEMA):
            return None
        table = file.read(columns=["key", "code"])
    except (OSError, pa.ArrowException):
        return None
    if set(table["code"].to_pylist()) != {code}:
        return None
    keys: list[str] = table["key"].to_pylist()
    return keys


def read_state(folder: Path) -> dict[str, Any]:
    """Return what the last invocation wrote; empty if there was none, or it cannot be read."""
    try:
        state = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write what this invocation asked for, and how it went.

    :raises StorageError: when it cannot be written.
    """
    write_atomically(folder / STATE, json.dumps(state, indent=2) + "\n")
