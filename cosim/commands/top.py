"""``cosim top``: what causes the exits and TLB misses of each policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cosim.commands.options import machine_option
from cosim.commands.trace_place import TracePlace
from cosim.errors import UsageError

if TYPE_CHECKING:
    from cosim.models.profile import Profile
    from cosim.models.result import ResultDocument
    from cosim.trace.location import Location

_ROWS = 10
_ALL = 1 << 30


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim top t\n"
    "  cosim top t --model shadow,lsp --by function --count exits --rows 30\n"
    "  cosim run linux --json > result.json; cosim top result.json --json\n"
)
@click.argument("path", metavar="TRACE|RESULT", type=TracePlace())
@click.option(
    "--by",
    "groups",
    multiple=True,
    type=click.Choice(["function", "site", "space"]),
    help="List only functions, call sites or address spaces; may be given several times.",
)
@click.option(
    "--count", type=click.Choice(["exits", "misses"]), help="Show only VM exits or misses."
)
@click.option(
    "--rows",
    default=_ROWS,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Rows at most.",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="Policies to model."
)
@machine_option()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    path: Path | Location,
    groups: tuple[str, ...],
    count: str | None,
    rows: int,
    models: tuple[str, ...],
    machine: str | None,
    as_json: bool,
) -> None:
    """Show which functions, call sites and address spaces cause VM exits and TLB misses.

    TRACE is a folder that `cosim capture` wrote, or a URI; it is replayed.  RESULT is the JSON of
    `cosim run` or `cosim replay`, or the folder of a run; it lists at most 20 of each.

    A call site is the instruction of an event, with its source line if the kernel's ELF file has
    DWARF.  Callers are not known: no event has the guest's stack.  An address space is a root table
    and an ASID, with the Linux process that owns it if the kernel has type information (BTF), as
    those of Debian have.  Programs (U-mode) count as one function.
    """
    from cosim.output import note, print_json, print_table
    from cosim.report import from_profile
    from cosim.report.renderers.terminal import Fitted

    # A table of exits has other rows than one of misses, so all are needed.
    result = _result(path, models, machine, rows if as_json else _ALL)
    profile = result.get("profile")
    if profile is None or "causes" not in profile:
        raise UsageError(f"{path}: this result does not say what caused its exits; run it again")
    _add_sources(result)
    if as_json:
        print_json(_document(result, profile))
        return
    keys = [key for key in from_profile.COUNTS if count in (None, key)]
    wanted = [group for group in from_profile.GROUPS if not groups or group[:-1] in groups]
    shown = False
    for key in keys:
        for group in wanted:
            table = from_profile.table(profile["causes"], key, group, rows)
            if table is not None:
                print_table(Fitted(table))
                shown = True
    if not shown:
        note("no policy had an exit or a miss there")
    for key in keys:
        for reason in from_profile.reasons_of(profile, key):
            note(f"{from_profile.COUNTS[key]}: {reason}")
    if "functions" in profile["reasons"]:
        note(profile["reasons"]["functions"])
    if "spaces" in wanted:
        for reason in from_profile.nameless(profile):
            note(reason)


def _result(
    path: Path | Location, models: tuple[str, ...], machine: str | None, rows: int
) -> ResultDocument:
    from cosim.report.from_path import read_result
    from cosim.trace import manifest

    if not isinstance(path, Path) or (path / manifest.NAME).is_file():
        return _replayed(path, models, machine, rows)
    for option, value in (("--model", models), ("--machine", machine)):
        if value:
            raise UsageError(f"{option} needs a trace, and {path} is a result; leave it out")
    return read_result(path)


def _replayed(
    path: Path | Location, models: tuple[str, ...], machine: str | None, rows: int
) -> ResultDocument:
    from cosim.models.model_options import (
        compile_models,
        make_pipeline,
        parse_machine,
        split_models,
    )
    from cosim.output import progress
    from cosim.trace.reader import TraceReader
    from cosim.trace.replay import replay

    trace = TraceReader(path)
    fields = {} if machine is None else parse_machine(machine)
    with progress("loading the models (the first time compiles them: half a minute)"):
        compile_models(trace.origin, split_models(models))
    pipeline = make_pipeline(trace.origin, split_models(models), fields)
    pipeline.rows = rows
    with progress("replay") as step:
        return replay(trace, pipeline, step)


def _add_sources(result: ResultDocument) -> None:
    """Give each call site its source line, if the kernel is still there and has DWARF."""
    from cosim.kernel.places import Places
    from cosim.trace.run_kernel import kernel_of

    places = Places(kernel_of(result["guest"]))
    sites: Any = result["profile"]["causes"]["sites"]
    for row in sites:
        address = row["address"]
        row["source"] = None if address is None else places.source(address)


def _document(result: ResultDocument, profile: Profile) -> dict[str, Any]:
    return {
        "format": "lsp-cosim-top",
        "version": 1,
        "guest": result["guest"].get("name"),
        "region": result["region"],
        "complete": result["complete"],
        "policies": {
            name: {"exits": policy["exits"]["at_least"], "misses": policy["tlb_misses"]}
            for name, policy in result["policies"].items()
        },
        **profile["causes"],
        "reasons": profile["reasons"],
    }
