"""What `cosim run FILE.toml` and `cosim capture FILE.toml` do: the runs of a file, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.table import Table

import guest
from cosim.errors import EnvironmentFault, UsageError
from cosim.output import note, print_json, print_table
from cosim.run import batch
from cosim.run import run_file as runfile
from cosim.run.batch import Execute, Outcome
from cosim.run.run_file import RunFile
from cosim.session import execute as launch


def run_file(
    path: Path, output: Path | None, *, as_json: bool, trace: bool, execute: Execute | None = None
) -> int:
    """Do the runs in ``path`` that are not done yet; return the exit status of the worst.

    Results go to ``output``, else where the file says.  With ``trace`` every run keeps its
    events.  ``execute`` does one run; the live session by default.

    :raise RunFileError: the file is malformed; nothing was started.
    """
    loaded = runfile.load(path, "plugin" if trace else "mi")
    _check(loaded)
    if execute is None:
        execute = launch.document
    folder = output or loaded.output
    specs = [replace(spec, trace=True) if trace else spec for spec in loaded.runs]
    outcomes: list[Outcome] = []
    for outcome in batch.run(specs, folder, execute):
        outcomes.append(outcome)
        note(f"[{len(outcomes)}/{len(specs)}] {outcome.name}: {_words(outcome)}")
    if as_json:
        print_json({"output": str(folder), "runs": [outcome.to_json() for outcome in outcomes]})
    else:
        print_table(_table(outcomes))
        if any(outcome.result for outcome in outcomes):
            # On its own line, whole however long it is.
            click.echo(f"results: {folder}/RUN/{batch.RESULT}")
    return max(outcome.exit_status for outcome in outcomes)


def _check(loaded: RunFile) -> None:
    """Refuse a run that could not start.

    What is missing on this machine (QEMU, a guest that was not made yet) is no fault of the file:
    the run that needs it says so, and the others are done.

    :raise RunFileError: with the line and key of the first that is wrong.
    """
    for spec in loaded.runs:
        if spec.guest is not None and guest.status(spec.guest) != "ready":
            continue
        try:
            launch.check(spec)
        except UsageError as error:
            loaded.refuse(spec.name, error)
        except EnvironmentFault:
            continue


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=None)
    for title in ("run", "status", "seconds", "error"):
        table.add_column(title, overflow="fold")
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}"
        table.add_row(outcome.name, _status(outcome), seconds, outcome.error or "")
    return table


def _words(outcome: Outcome) -> str:
    text = f"{_status(outcome)}, {outcome.seconds:.1f} s"
    return f"{text}: {outcome.error}" if outcome.error else text


def _status(outcome: Outcome) -> str:
    found = ", with a finding" if outcome.exit_status == 1 else ""
    return f"{outcome.status}{found}{' earlier' if outcome.earlier else ''}"
