"""``cosim sweep``: many models, machines and cost tables over many traces."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cosim.errors import UsageError
from cosim.output import note, print_json, print_line, progress
from cosim.trace.locate import is_uri

if TYPE_CHECKING:
    from cosim.sweep.cluster import Wish
    from cosim.sweep.sweep_file import SweepFile


def _on_a_disk(_context: click.Context, _option: click.Parameter, text: str | None) -> Path | None:
    """Return the folder that ``text`` names; None if there is no text.

    :raises UsageError: when it is a URI, or there is something else than a folder.
    """
    if text is None:
        return None
    if is_uri(text):
        raise UsageError("-o: a sweep needs a folder; only its traces can be in object storage")
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o: {folder} is no folder; name another one")
    return folder


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim sweep scripts/runs/sweep.toml\n"
    "  cosim sweep scripts/runs/sweep.toml --dry-run\n"
    "  cosim sweep scripts/runs/sweep.toml --workers 8 -o results\n"
    "  cosim sweep scripts/runs/sweep.toml --scheduler tcp://head:8786 -o /shared/results\n"
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FOLDER", callback=_on_a_disk, help="Folder of the sweep.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; do nothing.")
@click.option("--workers", metavar="N", type=click.IntRange(1, 1000), help="Processes to start.")
@click.option("--scheduler", metavar="ADDRESS", help="Use the workers of this Dask scheduler.")
@click.option("--offline", is_flag=True, help="Fail if a guest has to be built or fetched first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    file: Path,
    output: Path | None,
    dry_run: bool,
    workers: int | None,
    scheduler: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Capture and replay what FILE asks for, and keep one row for each trace and configuration.

    A configuration is one model with its options, on one machine, with one cost table.  FILE is a
    TOML file; docs/sweeps.md says what is in it.  The rows are in FOLDER/results/*.parquet, also
    while the sweep goes on.  The same command again does only what is missing.

    By default the tasks run in as many processes as this machine has processors, and the captures
    in half as many.  The exit status is 2 or 3 if one failed; the others are done all the same.
    """
    from cosim.commands.one_run import capture_only
    from cosim.run.run_processes import at_a_time
    from cosim.session.backends import BACKENDS, FOR_CAPTURE
    from cosim.sweep import conduct, sweep_file
    from cosim.sweep.cluster import Wish

    if workers is not None and scheduler is not None:
        raise UsageError("--workers cannot be used together with --scheduler, which has its own")
    asked = sweep_file.load(file, BACKENDS, FOR_CAPTURE)
    asked.check_traces()
    folder = output or asked.output
    wish = Wish(scheduler, workers)
    if dry_run:
        return _dry_run(asked, folder, wish, as_json=as_json)
    captures = partial(at_a_time, execute=partial(capture_only, offline=offline))
    how = conduct.Conducting(wish, captures, note)
    outcome = conduct.sweep(asked, folder, how, progress)
    if as_json:
        print_json(outcome.to_json())
        return outcome.exit_status
    print_line(
        f"{outcome.done_already + outcome.done:,} of {outcome.rows:,} rows are there, "
        f"{outcome.done:,} of them new in {conduct.duration(outcome.seconds)}"
    )
    if outcome.tasks_failed:
        print_line(f"{_counted(outcome.tasks_failed, 'task')} failed; logs: {folder}/failures")
    if outcome.missing:
        print_line(f"{outcome.missing:,} rows are missing; the same command tries them again")
    print_line(f"results: {folder}/results/*.parquet")
    return outcome.exit_status


def _dry_run(asked: SweepFile, folder: Path, wish: Wish, *, as_json: bool) -> int:
    """Print what the sweep would do; return the exit status."""
    from cosim.sweep import conduct, task_plan

    outlook = conduct.look(asked, folder, wish)
    plan = outlook.plan
    configurations = len(asked.configurations)
    rows = len(asked.names) * configurations
    if as_json:
        print_json(
            {
                "traces_asked_for": len(asked.names),
                "rows_asked_for": rows,
                **task_plan.describe(plan),
                "configurations": configurations,
                "captures_missing": outlook.missing,
                "workers": outlook.workers,
                "expected_seconds": outlook.seconds,
            }
        )
        return 0
    print_line(
        f"{_counted(len(asked.names), 'trace')}, {_counted(configurations, 'configuration')}, "
        f"{_counted(rows, 'row')}"
    )
    if outlook.missing:
        print_line(f"to capture first: {', '.join(outlook.missing)}")
    if plan.traces:
        print_line(
            "over the traces that are there: "
            f"{_counted(plan.done, 'row')} done, {_counted(len(plan.tasks), 'task')} to do"
        )
    if outlook.missing:
        print_line("how long it takes can be said when the captures are there")
    elif outlook.seconds is not None:
        where = _counted(outlook.workers or 1, "worker")
        if outlook.workers is None:
            where += " (--dry-run does not ask the scheduler how many it has)"
        print_line(f"this takes about {conduct.duration(outlook.seconds)} on {where}")
    return 0


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
