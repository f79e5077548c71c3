"""``cosim capture``: a guest's paging events as a trace."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import (
    EDGES,
    jobs_option,
    refuse_beside_file,
    refuse_jobs,
    run_options,
    spec_from,
)
from cosim.commands.trace_place import TracePlace
from cosim.errors import UsageError
from cosim.session.backends import FOR_CAPTURE
from cosim.trace.location import Location


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim capture linux -o t && cosim replay t\n"
    "  cosim capture linux --backend gdb --step 4 -o t\n"
    "  cosim capture linux -o s3://BUCKET/linux\n"
    "  cosim capture scripts/runs/overnight.toml -o results --jobs 4\n"
)
@click.argument("guest", required=False, shell_complete=guest_or_file)
@run_options("capture")
@click.option(
    "-o", "--output", required=True, type=TracePlace(), help="Folder or URI for the trace."
)
@jobs_option
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the session's logs here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    guest: str | None,
    output: Path | Location,
    jobs: int | None,
    logs: Path | None,
    as_json: bool,
    offline: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Record the paging events of GUEST as a trace in the folder or at the URI given with -o.

    GUEST is a name from `cosim guest list`, or a run file (*.toml) whose runs all keep a trace.

    The plugin captures at QEMU's speed.  It is the default unless --step is given.  With
    --step or --backend gdb+plugin, gdb stops a re-execution of the same run at every event, and the
    trace has its samples, too.  If the plugin cannot be loaded, gdb is used alone and a line says
    so.  A guest that is missing is built or fetched first.
    """
    from cosim.commands.many_runs import do_runs
    from cosim.commands.one_run import capture_and_print

    if guest is not None and guest.endswith(".toml"):
        refuse_beside_file(guest)
        if not isinstance(output, Path):
            raise UsageError(
                "-o: the results of a run file go into a folder; capture one guest at a time to "
                "keep its trace in object storage"
            )
        return do_runs(
            Path(guest), output, as_json=as_json, trace=True, offline=offline, jobs=jobs or 1
        )
    refuse_jobs(jobs)
    spec = spec_from(guest, FOR_CAPTURE, **{"from": from_}, **given)
    return capture_and_print(spec, output, as_json=as_json, logs=logs, offline=offline)


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
