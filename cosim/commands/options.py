"""Options that `cosim run` and `cosim capture` share, and the run that they describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cosim.errors import UsageError
from cosim.run import spec as runspec
from cosim.run.spec import Backend, RunSpec

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = [
    click.option("--kernel", metavar="FILE", help="Boot this ELF file or Linux Image."),
    click.option("--initrd", metavar="FILE", help="Its initial RAM disk."),
    click.option("--append", metavar="STR", help="Kernel command line (added to a guest's own)."),
    click.option("--bios", metavar="none|FILE", help="Firmware; none starts in M-mode."),
    click.option("--memory", metavar="SIZE", help="Guest RAM, for example 512M."),
    click.option("--cpu", metavar="STR", help="QEMU's -cpu, for example rv64,sv57=off."),
    click.option("--from", "from_", metavar="EDGE", help="Where the region of interest begins."),
    click.option("--to", metavar="EDGE", help="Where it ends."),
    click.option("--workload", metavar="COMMAND", help="What the guest's own init runs."),
    click.option(
        "--backend", type=click.Choice(["mi", "plugin"]), help="Source of events; mi is gdb."
    ),
    click.option(
        "--filter", type=int, metavar="SLOTS", help="Plugin: of its access filter; 1 drops least."
    ),
    click.option(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="Give up after this long; 600, for --live none.",
    ),
]

EDGES = """An EDGE is mark:LABEL (set by the guest's program), console:PATTERN, an address, a
symbol of the kernel, boot (only --from) or power-off (only --to)."""


def run_options(function: F) -> F:
    """Add the options that describe a guest and its region."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def refuse_beside_file(file: str) -> None:
    """Refuse options of the command that describe one run beside a run file.

    :raise UsageError: there is one.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in ("guest", "output", "as_json"):
            raise UsageError(
                f"{parameter.opts[0]} is for a guest; what the runs of {file} do stands in the file"
            )


def make_spec(guest: str | None, default: Backend, **given: Any) -> RunSpec:
    """The run that the options describe, checked as a run file would be.

    ``given`` has the fields of a run file; None stands for "not given".  ``default`` is the
    backend of the command.

    :raise UsageError: a value is malformed, or two do not go together.
    """
    given["guest"] = guest
    fields = {}
    for key, value in given.items():
        if value is None or value == () or value == []:
            continue
        try:
            fields[key] = runspec.check(key, value, Path())
        except ValueError as error:
            raise UsageError(f"{_as_typed(key)} {error}") from None
    fields.setdefault("backend", runspec.default_backend(fields, default))
    wrong = runspec.problem(fields)
    if wrong is not None:
        raise UsageError(f"{_as_typed(wrong[0])} {wrong[1]}")
    for edge in ("from", "to"):
        if edge in fields:
            fields[f"region_{edge}"] = fields.pop(edge)
    return RunSpec(name=guest or "run", **fields)


def _as_typed(key: str) -> str:
    """What on the command line gives ``key`` of a run file."""
    names = {"guest": "GUEST", "models": "--model", "accesses": "--no-accesses"}
    return names.get(key, f"--{key.replace('_', '-')}")
