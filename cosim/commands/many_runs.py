"""``cosim run FILE.toml`` and ``cosim capture FILE.toml``: do each run of a file once."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from rich.table import Table

import guest
from cosim.commands import one_run
from cosim.errors import EnvironmentFault, UsageError
from cosim.models.model_options import DEFAULT_MODELS, compile_missing
from cosim.output import note, print_json, print_line, print_table, progress
from cosim.report import answer
from cosim.run import batch, run_file
from cosim.run.batch import RunOutcome, WorkOff
from cosim.run.run_file import RunFile
from cosim.run.run_processes import at_a_time
from cosim.run.run_spec import RunSpec
from cosim.session.backends import BACKENDS, FOR_CAPTURE, FOR_RUN
from cosim.session.execution import check


def do_runs(
    path: Path,
    output: Path | None,
    *,
    as_json: bool,
    trace: bool,
    offline: bool = False,
    jobs: int = 1,
    work_off: WorkOff | None = None,
) -> int:
    """Do the runs in ``path`` that are not done yet; return the exit status of the worst.

    :param output: the folder of the results; None: the file says where they go.
    :param trace: every run keeps its events.
    :param offline: a run fails if its guest has to be made first.
    :param jobs: how many runs are done at a time.
    :param work_off: does the runs; None: sessions do.
    :raises RunFileError: when the file is malformed; then nothing was started.
    """
    work_off = work_off or at_a_time(jobs, partial(one_run.document, offline=offline))
    loaded = run_file.load(path, BACKENDS, FOR_CAPTURE if trace else FOR_RUN)
    if trace:
        _check_once(loaded)
    _check(loaded)
    folder = output or loaded.output
    specs = [replace(spec, trace=True) if trace else spec for spec in loaded.runs]
    if jobs > 1:
        _compile(specs)
    number = count(1)

    def tell(outcome: RunOutcome) -> None:
        note(f"[{next(number)}/{len(specs)}] {outcome.name}: {_words(outcome)}")

    outcomes = batch.run(specs, folder, work_off, tell)
    if as_json:
        print_json({"output": str(folder), "runs": [outcome.to_json() for outcome in outcomes]})
    else:
        print_table(_table(outcomes))
        if any(outcome.result for outcome in outcomes):
            # Outside the table, so that it is never folded.
            print_line(f"results: {folder}/RUN/{batch.RESULT}")
    return max(outcome.exit_status for outcome in outcomes)


def _check_once(loaded: RunFile) -> None:
    """Check that no run is to be repeated, since all would have their trace in one folder.

    :raises RunFileError: when one is; it names line and key.
    """
    for spec in loaded.runs:
        if spec.runs > 1:
            wrong = UsageError(
                "cannot be used with `cosim capture`, which keeps one trace of a run"
            )
            wrong.key = "runs"
            loaded.refuse(spec.name, wrong)


def _check(loaded: RunFile) -> None:
    """Check that each run could start.

    It is no fault of the file if something is missing on this machine (QEMU, or a guest that was
    not made yet).  Then the run that needs it fails later, and the others are done.

    :raises RunFileError: when a run is wrong; it names line and key of the first.
    """
    for spec in loaded.runs:
        if spec.guest is not None and guest.status(spec.guest) != "ready":
            continue
        try:
            check(spec)
        except UsageError as error:
            loaded.refuse(spec.name, error)
        except EnvironmentFault:
            continue


def _compile(specs: list[RunSpec]) -> None:
    """Compile the models of all runs if they never were, or runs beside each other would each."""
    models = dict.fromkeys(name for spec in specs for name in spec.models or DEFAULT_MODELS)
    with progress("compiling the models (only the first time: half a minute)"):
        compile_missing(list(models))


def _table(outcomes: list[RunOutcome]) -> Table:
    table = Table(box=None)
    for title in ("run", "status", "seconds", "answer"):
        table.add_column(title, overflow="fold")
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}"
        table.add_row(outcome.name, _status(outcome), seconds, outcome.error or _answer(outcome))
    return table


def _answer(outcome: RunOutcome) -> str:
    if outcome.result is None:
        return ""
    return answer.headline(json.loads(outcome.result.read_bytes()))


def _words(outcome: RunOutcome) -> str:
    text = f"{_status(outcome)}, {outcome.seconds:.1f} s"
    return f"{text}: {outcome.error}" if outcome.error else text


def _status(outcome: RunOutcome) -> str:
    found = ", with a finding" if outcome.exit_status == 1 else ""
    return f"{outcome.status}{found}{' earlier' if outcome.earlier else ''}"
