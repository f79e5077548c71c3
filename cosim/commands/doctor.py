"""``cosim doctor``: check what is installed."""

from __future__ import annotations

import click
from rich.table import Column, Table

from cosim import doctor, output


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(as_json: bool) -> int:
    """Check what is installed; say what each missing part costs, and how to get it.

    The exit status is 3 if a part is missing that every session needs.

    Example: cosim doctor
    """
    parts = doctor.examine()
    fine = all(part.status != "missing" or not part.required for part in parts)
    if as_json:
        output.print_json({"ok": fine, "parts": [part.document() for part in parts]})
        return 0 if fine else 3
    # A path that is cut cannot be copied.
    names = ("part", "status", "version", "where")
    table = Table(*(Column(name, overflow="fold") for name in names))
    for part in parts:
        optional = "" if part.required or part.status == "ok" else " (optional)"
        table.add_row(part.name, part.status + optional, part.version, part.path)
    output.print_table(table)
    for part in parts:
        if part.status != "ok":
            found = f" ({part.found})" if part.found else ""
            output.print_line(f"{part.name}: {part.status}{found}")
            output.print_line(f"  costs:     {part.costs}")
            output.print_line(f"  to get it: {part.get}")
    return 0 if fine else 3
