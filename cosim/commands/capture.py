"""``cosim capture``: a guest's paging events as a trace."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import EDGES, make_spec, refuse_beside_file, run_options


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim capture linux -o t && cosim replay t\n"
    "  cosim capture linux --backend mi --step 4 -o t\n"
    "  cosim capture scripts/runs/overnight.toml -o results\n"
)
@click.argument("guest", required=False, shell_complete=guest_or_file)
@run_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The trace.")
@click.option("--no-accesses", is_flag=True, help="Tables, fences and satp only: smaller, faster.")
@click.option("--step", type=int, metavar="N", help="gdb: step N instructions after each event.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    guest: str | None,
    output: Path,
    no_accesses: bool,
    as_json: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Record the paging events of GUEST as a trace in the folder given with -o.

    GUEST is a guest of `cosim guest list`, or a run file (*.toml) whose runs all keep a trace.
    The plugin captures at QEMU's speed and is the default without --step; where it cannot be had,
    gdb captures.
    """
    from cosim.commands.batch import run_file
    from cosim.session import execute as launch

    if guest is not None and guest.endswith(".toml"):
        refuse_beside_file(guest)
        return run_file(Path(guest), output, as_json=as_json, trace=True)
    given |= {"from": from_, "accesses": False if no_accesses else None}
    spec = make_spec(guest, "plugin", **given)
    return launch.capture_and_print(spec, output, as_json=as_json)


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
