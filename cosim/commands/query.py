"""``cosim query``: SQL over a trace or the results of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cosim.commands.trace_place import TracePlace
from cosim.output import note, print_json, print_table
from cosim.sweep.state_file import is_sweep
from cosim.trace import query
from cosim.trace.location import Location
from cosim.trace.reader import TraceReader


@click.command(epilog="Views of a trace: " + ", ".join(["events", *query.VIEWS]) + ".")
@click.argument("place", metavar="TRACE", type=TracePlace())
@click.argument("sql", metavar="SQL")
@click.option("--limit", default=1000, show_default=True, help="The most rows to show; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(place: Path | Location, sql: str, limit: int, as_json: bool) -> None:
    """Run one SELECT over the trace or the sweep, with DuckDB, read-only.

    TRACE is a folder that `cosim capture` wrote, or a URI such as s3://BUCKET/PREFIX.  It can also
    be the folder of a sweep, which has one table, results, with a row for each trace and
    configuration, also while the sweep goes on.

    Addresses, entries and register values are UBIGINT, which the table shows in hexadecimal.  The
    rows come in no particular order unless you write ORDER BY event.

    \b
    Examples:
      cosim query t "SELECT pc, count(*) FROM fences GROUP BY pc"
      cosim query tlbs "SELECT trace, policy, min(exits), max(exits) FROM results GROUP BY ALL"
    """
    most = limit or None
    if isinstance(place, Path) and is_sweep(place):
        from cosim.sweep import result_query

        answer = result_query.run(place, sql, most)
    else:
        answer = query.run(TraceReader(place), sql, most)
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
