"""What `cosim run FILE.toml` and `cosim capture FILE.toml` do: the runs of a file, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.table import Table

from cosim import batch, runfile
from cosim.batch import Execute, Outcome
from cosim.output import note, print_json, print_table


def run_file(
    path: Path, output: Path | None, *, as_json: bool, trace: bool, execute: Execute | None = None
) -> int:
    """Do the runs in ``path`` that are not done yet; return the exit status of the worst.

    Results go to ``output``, else where the file says.  With ``trace`` every run keeps its
    events.  ``execute`` does one run; the live session by default.

    :raise RunFileError: the file is malformed; nothing was started.
    """
    loaded = runfile.load(path)
    if execute is None:
        from cosim import launch

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
    return max(outcome.exit_status for outcome in outcomes)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("run", "status", "seconds", "result or error", box=None)
    for outcome in outcomes:
        what = outcome.error if outcome.result is None else str(outcome.result)
        table.add_row(outcome.name, _status(outcome), f"{outcome.seconds:.1f}", what)
    return table


def _words(outcome: Outcome) -> str:
    text = f"{_status(outcome)}, {outcome.seconds:.1f} s"
    return f"{text}: {outcome.error}" if outcome.error else text


def _status(outcome: Outcome) -> str:
    found = ", with a finding" if outcome.exit_status == 1 else ""
    return f"{outcome.status}{found}{' earlier' if outcome.earlier else ''}"
