"""``cosim snapshot``: a booted guest in a file, from which runs can start."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import run_options, spec_from
from cosim.errors import UsageError
from cosim.session.backends import FOR_DEBUG
from cosim.trace.locate import is_uri

_NOT_SAVED = {"disk", "disk_write", "disk_limit", "net", "share", "smp"}
"""Options for what a snapshot does not hold."""
_OF_REGIONS = {"from_", "to", "machine", "expect", "send", "backend"}
"""Options for what a run does after it."""


def _file(_context: click.Context, _option: click.Parameter, text: str) -> Path:
    """Return the path that ``text`` names.

    :raises UsageError: when it is a URI.
    """
    if is_uri(text):
        raise UsageError("-o: a snapshot is a file of this machine; only traces can be at a URI")
    return Path(text)


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim snapshot linux --at mark:init -o init.snap\n"
    "  cosim run linux --from-snapshot init.snap\n"
    "  cosim snapshot linux --append cosim.shell=1 --at 'console:guest# ' -o shell.snap\n"
    "  cosim run linux --from-snapshot shell.snap --expect 'guest# ' --send 'ls; exit\\n'\n"
)
@click.argument("guest", required=False, shell_complete=guest_or_file)
@run_options("snapshot", without=_NOT_SAVED | _OF_REGIONS)
@click.option(
    "--at",
    required=True,
    metavar="EDGE",
    help="Where to save it: mark:LABEL, console:PATTERN, an address or a symbol of the kernel.",
)
@click.option(
    "-o", "--output", metavar="FILE", required=True, callback=_file, help="The file to write."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    guest: str | None, at: str, output: Path, as_json: bool, offline: bool, **given: Any
) -> int:
    """Boot GUEST once, and save it at one place.

    `cosim run` and `cosim capture` start there with --from-snapshot FILE, with every backend.  Give
    them the same guest and machine.  A run's region then begins at the snapshot unless --from says
    where.

    The file holds RAM and the state of one hart and the board.  It does not hold disks, network
    connections or shared folders, so these cannot be used with it.
    """
    from cosim.commands.logs import folder_for
    from cosim.commands.one_run import make_guest
    from cosim.output import print_json, print_table
    from cosim.run.plan import DEFAULT_TIME_LIMIT, about, resolve
    from cosim.run.region import parse
    from cosim.session.protocol import Progress
    from cosim.session.saving import save
    from cosim.session.view import live_view

    if at in ("boot", "power-off"):
        raise UsageError(f"--at cannot be {at}: name a place in between")
    spec = spec_from(guest, FOR_DEBUG, **given)
    make_guest(spec, offline=offline)
    plan = resolve(spec)
    plan.check_can_save("a snapshot")
    if not output.absolute().parent.is_dir():
        raise UsageError(f"-o: there is no folder {output.absolute().parent}")
    with about("at"):
        place = parse(at, plan.symbols, end=False)
    started = time.monotonic()
    limit = started + (plan.time_limit or DEFAULT_TIME_LIMIT)
    with folder_for(None) as folder, live_view() as view:
        head = save(
            *(plan, place, output, folder, limit),
            lambda phase, line: view(Progress(phase, time.monotonic() - started, 0, line, {})),
        )
    shutil.rmtree(folder, ignore_errors=True)
    size = output.stat().st_size
    if as_json:
        print_json({"file": str(output), "bytes": size, **asdict(head)})
        return 0
    where = plan.symbols.describe(head.pc)
    print_table(
        f"{output}: {plan.name} at {at}, before {where}; {size / 1e6:,.1f} MB, "
        f"{time.monotonic() - started:.1f} s"
    )
    return 0
