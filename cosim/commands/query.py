"""``cosim query``: SQL over a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cosim.commands.trace_place import TracePlace
from cosim.output import note, print_json, print_table
from cosim.trace import query
from cosim.trace.location import Location
from cosim.trace.reader import TraceReader


@click.command(epilog="Views: " + ", ".join(["events", *query.VIEWS]) + ".")
@click.argument("place", metavar="TRACE", type=TracePlace())
@click.argument("sql", metavar="SQL")
@click.option("--limit", default=1000, show_default=True, help="The most rows to show; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(place: Path | Location, sql: str, limit: int, as_json: bool) -> None:
    """Run one SELECT over the trace, with DuckDB, read-only.

    TRACE is a folder that `cosim capture` wrote, or a URI such as s3://BUCKET/PREFIX.

    Addresses, entries and register values are UBIGINT, which the table shows in hexadecimal.  The
    rows come in no particular order unless you write ORDER BY event.

    Example: cosim query t "SELECT pc, count(*) FROM fences GROUP BY pc"
    """
    answer = query.run(TraceReader(place), sql, limit or None)
    if as_json:
        print_json({"columns": answer.columns, "rows": answer.rows, "more": answer.more})
        return
    table = Table(box=None)
    for column in answer.columns:
        table.add_column(column, overflow="fold")
    for row in answer.rows:
        table.add_row(*map(_cell, row, answer.addresses))
    print_table(table)
    if answer.more:
        note(f"there are more than {limit} rows; --limit 0 shows all")


def _cell(value: Any, address: bool) -> str:
    if value is None:
        return ""
    return hex(value) if address else str(value)
