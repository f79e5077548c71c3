"""``cosim guest``: the guests that the tool makes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

import guest
from cosim import output
from cosim.commands.completion import guest_or_file
from cosim.errors import UsageError
from guest import apt, linux, registry, spec
from guest.micro.scenarios import scenarios
from guest.workloads import SIZES, WORKLOADS

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group()
def command() -> None:
    """List, fetch and build the guests that the tool makes.

    Their files are in the cache folder: $COSIM_CACHE if it is set, otherwise
    $XDG_CACHE_HOME/lsp-cosim or ~/.cache/lsp-cosim.

    Example: cosim guest fetch linux
    """


@command.command("list")
@_JSON
def list_guests(as_json: bool) -> None:
    """Show which guests are ready, and their folders.

    Example: cosim guest list --json
    """
    rows = [_row(name) for name in guest.NAMES]
    if as_json:
        output.print_json({"guests": rows})
        return
    table = Table("guest", "status", "what", "folder or what to type")
    for row in rows:
        where = row["folder"] if row["status"] == "ready" else row["command"]
        table.add_row(row["name"], row["status"], row["summary"], where)
    output.print_table(table)


@command.command()
@click.argument("name", shell_complete=guest_or_file)
@click.option("--force", is_flag=True, help="Fetch again, to get newer packages.")
@click.option(
    "--suite",
    metavar="SUITE",
    help=f"The Debian suite of the kernel: {apt.SUITE} (the default), trixie-backports, sid ...",
)
@click.option(
    "--kernel-version",
    metavar="VERSION",
    help="The newest kernel of the suite whose version begins like this, such as 6.12 or 7.2.13.",
)
@_JSON
def fetch(
    name: str, force: bool, suite: str | None, kernel_version: str | None, as_json: bool
) -> None:
    """Fetch a guest from this machine's Debian mirror.

    apt checks the signatures and resumes a download that was cut off.  This needs apt on Debian;
    the machine's own apt state does not change.

    The guest has one kernel at a time.  Without --suite and --kernel-version, the one that was
    chosen last stays.

    \b
    Examples:
      cosim guest fetch linux
      cosim guest fetch linux --suite sid
      cosim guest fetch linux --suite trixie --kernel-version 6.12
    """
    _make(name, "fetch", force, as_json, _kernel(name, suite, kernel_version))


@command.command()
@click.argument("name", shell_complete=guest_or_file)
@click.option("--force", is_flag=True, help="Build again even if nothing has changed.")
@_JSON
def build(name: str, force: bool, as_json: bool) -> None:
    """Cross-compile a guest from its sources, if they have changed.

    Example: cosim guest build micro
    """
    _make(name, "build", force, as_json)


@command.command("workloads")
@_JSON
def list_workloads(as_json: bool) -> None:
    """Show what the workloads guest can run.

    The list says which programs are only stand-ins.

    Run one with `cosim run workloads --workload NAME:SIZE`; SIZE is test or full.

    Example: cosim guest workloads --json
    """
    rows = [asdict(workload) for workload in WORKLOADS.values()]
    if as_json:
        output.print_json({"workloads": rows})
        return
    table = Table("workload", "stands for", "what", "MiB test", "MiB full")
    for row in rows:
        stands_for = row["stands_for"] or "itself"
        kind = "stand-in for " if row["stand_in"] else ""
        sizes = (str(row["memory"][size]) for size in SIZES)
        table.add_row(row["name"], kind + stands_for, row["what"], *sizes)
    output.print_table(table)


def _kernel(name: str, suite: str | None, version: str | None) -> linux.Kernel | None:
    if suite is None and version is None:
        return None
    if name != linux.NAME:
        raise UsageError(
            f"--suite and --kernel-version choose the kernel of the guest {linux.NAME}; guest "
            f"{name} has none to choose"
        )
    for option, value in (("--suite", suite), ("--kernel-version", version)):
        if value == "":
            raise UsageError(f"{option} is empty; give a value, or leave it out")
    return linux.Kernel(suite or apt.SUITE, version or "")


def _make(
    name: str, verb: str, force: bool, as_json: bool, kernel: linux.Kernel | None = None
) -> None:
    right = registry.recipe(name).verb
    if right != verb:
        raise UsageError(f"guest {name} is not made by {verb}: type `cosim guest {right} {name}`")
    with output.progress(f"{verb} {name}") as step:
        made = guest.ensure(name, step, force=force, kernel=kernel)
    if as_json:
        output.print_json(made.document())
        return
    versions = ", ".join(f"{package} {version}" for package, version in made.versions.items())
    output.note(f"guest {name} is ready: {spec.folder(name)}" + (f" ({versions})" * bool(versions)))


def _row(name: str) -> dict[str, Any]:
    recipe = registry.recipe(name)
    found = spec.read(name)
    return {
        "name": name,
        "status": registry.status(name),
        "summary": recipe.summary,
        "folder": str(spec.folder(name)),
        "command": f"cosim guest {recipe.verb} {name}",
        "versions": found.versions if found else {},
        "scenarios": [asdict(one) for one in scenarios()] if name.startswith("micro") else [],
    }
