"""``cosim doctor``: what of the outside world is there."""

from __future__ import annotations

import click
from rich.table import Table

from cosim import doctor, output


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> int:
    """Say which parts are there, what a missing one costs, and how to get it.

    Exit status 3 when a part is missing that every session needs.

    Example: cosim doctor
    """
    parts = doctor.examine()
    fine = all(part.status != "missing" or not part.required for part in parts)
    if as_json:
        output.print_json({"ok": fine, "parts": [part.document() for part in parts]})
        return 0 if fine else 3
    table = Table("part", "status", "version", "where")
    for part in parts:
        optional = "" if part.required or part.status == "ok" else " (optional)"
        table.add_row(part.name, part.status + optional, part.version, part.path)
    output.print_table(table)
    for part in parts:
        if part.status != "ok":
            found = f" ({part.found})" if part.found else ""
            click.echo(f"{part.name}: {part.status}{found}")
            click.echo(f"  costs:     {part.costs}")
            click.echo(f"  to get it: {part.get}")
    return 0 if fine else 3
