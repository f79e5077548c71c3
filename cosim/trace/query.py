"""SQL over a trace, by DuckDB: read-only, nothing outside of the trace in reach.

Besides ``events`` (the columns of :mod:`cosim.trace.schema`) there is one view a kind of event,
whose columns carry the names of what they hold; each begins with ``event``, ``icount``, ``hart``,
``priv`` and ``pc``.  :data:`VIEWS` lists them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from cosim.errors import UsageError
from cosim.trace import schema
from cosim.trace.describe import FENCE_NAMES
from cosim.trace.reader import TraceReader
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_MXR,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    Fence,
    Kind,
    PteOp,
    Satp,
)


class Rows(NamedTuple):
    """The answer to a query."""

    columns: list[str]
    addresses: list[bool]
    """Which columns are unsigned 64-bit: addresses, entries, register values."""
    rows: list[list[Any]]
    """Values that JSON can hold."""
    more: bool
    """Whether the answer has more rows than were asked for."""


def _names(column: str, names: Mapping[int, str] | type[IntEnum]) -> str:
    pairs = names.items() if isinstance(names, Mapping) else ((m, m.name.lower()) for m in names)
    cases = " ".join(f"WHEN {int(number)} THEN '{name}'" for number, name in pairs)
    return f"CASE {column} {cases} END"


def _flag(flag: int) -> str:
    return f"(flags & {flag}) <> 0"


_FAULT = "b >= 9223372036854775808"  # Negative as int64: see events.py.

VIEWS: dict[str, tuple[Kind, str]] = {
    "table_adds": (Kind.TABLE_ADD, "a AS pa, b::UTINYINT AS level, sub = 1 AS root"),
    "table_entries": (Kind.TABLE_ENTRY, "a AS pa, c AS value"),
    "table_drops": (Kind.TABLE_DROP, "a AS pa"),
    "pte_writes": (
        Kind.PTE_WRITE,
        f"a AS pa, b AS old, c AS new, {_names('sub', PteOp)} AS op, size, "
        f"{_flag(FLAG_CONT)} AS continued",
    ),
    "fences": (
        Kind.FENCE,
        f"{_names(f'sub & {0xFF & ~Fence.FORM}', FENCE_NAMES)} AS instruction, "
        f"CASE WHEN (sub & {Fence.VA}) <> 0 THEN a END AS va, "
        f"CASE WHEN (sub & {Fence.ASID}) <> 0 THEN b::UINTEGER END AS asid",
    ),
    "satp_writes": (
        Kind.SATP_WRITE,
        f"{_names('sub', Satp)} AS register, a AS old, b AS new, {_flag(FLAG_STOP)} AS sample",
    ),
    "accesses": (
        Kind.ACCESS,
        f"{_names('sub', Access)} AS access, a AS va, "
        f"CASE WHEN NOT {_FAULT} THEN b END AS pa, "
        f"CASE WHEN {_FAULT} THEN (18446744073709551615 - b)::UINTEGER END AS cause, "
        f"{_flag(FLAG_SUM)} AS sum, {_flag(FLAG_MXR)} AS mxr, {_flag(FLAG_STOP)} AS sample",
    ),
    "page_faults": (Kind.PAGE_FAULT, "a AS tval, b::UINTEGER AS cause"),
    "marks": (
        Kind.MARK,
        "a::BIGINT AS number, (SELECT text FROM labels WHERE number = a) AS label",
    ),
}
"""Kind and columns of each view."""


def run(trace: TraceReader, sql: str, limit: int | None = None) -> Rows:
    """The answer of one SELECT over ``trace``, at most ``limit`` rows of it.

    Raises UsageError when the SQL is wrong or would do more than read, TraceDamage when a
    segment that it reads is damaged.
    """
    connection = _connect(trace)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in (
            duckdb.StatementType.SELECT,
            duckdb.StatementType.EXPLAIN,
        ):
            raise UsageError("the query must be one SELECT; a trace is read-only")
        answer = connection.execute(statements[0])
        columns = [column[0] for column in answer.description]
        addresses = [str(column[1]) == "UBIGINT" for column in answer.description]
        rows = answer.fetchall() if limit is None else answer.fetchmany(limit + 1)
    except duckdb.Error as error:
        text = str(error).splitlines()[0]
        if isinstance(error, duckdb.ParserException | duckdb.CatalogException):
            tables = ", ".join(["events", *VIEWS])
            raise UsageError(f"{text} (views: {tables})") from error
        raise UsageError(text) from error
    finally:
        connection.close()
    shown = rows if limit is None else rows[:limit]
    plain = [[_plain(value) for value in row] for row in shown]
    return Rows(columns, addresses, plain, more=len(rows) > len(shown))


def _connect(trace: TraceReader) -> Any:
    for segment in trace.segments:
        segment.load()  # A damaged footer could make DuckDB skip rows without a word.
    files = [str(segment.path) for segment in trace.segments]
    events = ds.dataset(files, schema=schema.SCHEMA, format="parquet")
    labels = pa.table(
        {
            "number": pa.array(trace.labels.keys(), pa.int64()).cast(pa.uint64(), safe=False),
            "text": pa.array(trace.labels.values(), pa.string()),
        }
    )
    connection = duckdb.connect(":memory:")
    connection.register("events", events)
    connection.register("labels", labels)
    for name, (kind, columns) in VIEWS.items():
        connection.execute(
            f"CREATE VIEW {name} AS SELECT event, icount, hart, priv, pc, {columns} "
            f"FROM events WHERE kind = '{schema.KIND_NAMES[kind]}'"
        )
    for setting in (
        "python_enable_replacements = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)
