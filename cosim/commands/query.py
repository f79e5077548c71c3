"""``cosim query``: SQL over a trace or the results of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cosim.output import note, print_json, print_table
from cosim.sweep.state_file import is_sweep
from cosim.trace import query
from cosim.trace.reader import TraceReader


@click.command(epilog="Views of a trace: " + ", ".join(["events", *query.VIEWS]) + ".")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("sql", metavar="SQL")
@click.option("--limit", default=1000, show_default=True, help="The most rows to show; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(folder: Path, sql: str, limit: int, as_json: bool) -> None:
    """Run one SELECT over the trace or the sweep in DIR, with DuckDB, read-only.

    A sweep has one table, results, with a row for each trace and configuration, also while the
    sweep goes on.

    Addresses, entries and register values are UBIGINT, which the table shows in hexadecimal.  The
    rows come in no particular order unless you write ORDER BY event.

    \b
    Examples:
      cosim query t "SELECT pc, count(*) FROM fences GROUP BY pc"
      cosim query sweep "SELECT trace, policy, min(exits), max(exits) FROM results GROUP BY ALL"
    """
    most = limit or None
    if is_sweep(folder):
        from cosim.sweep import result_query

        answer = result_query.run(folder, sql, most)
    else:
        answer = query.run(TraceReader(folder), sql, most)
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
