"""SQL over a trace, by DuckDB: read-only, with nothing in reach but the trace.

Besides ``events`` (the columns of :mod:`cosim.trace.schema`) there is one view for each kind of
event.  :data:`hypervisor_model.events.KINDS` gives their columns names that say what they hold.
:data:`VIEWS` lists the views.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from cosim.errors import UsageError
from cosim.trace import schema
from cosim.trace.reader import TraceReader
from hypervisor_model.events import KINDS, Form, KindDescription, Value


class Rows(NamedTuple):
    """The answer to a query."""

    columns: list[str]
    addresses: list[bool]
    """True for each column of unsigned 64-bit numbers: addresses, entries, register values."""
    rows: list[list[Any]]
    """Values that JSON can hold."""
    more: bool
    """True if the answer has more rows than were asked for."""


_FAULT = 1 << 63
"""A PA from here on is negative as int64: it says that the access faults."""
_COMMON = ("event", "icount", "hart", "priv", "pc")
"""The columns that each view begins with."""


_ONE_SELECT = "the query must be one SELECT; the data are read-only"
_HEXADECIMAL = re.compile(rb"0[xX]([0-9a-fA-F]+)\b")


def _decimal(sql: str) -> str:
    """Return ``sql`` with each hexadecimal literal in decimal.

    DuckDB has none: it reads ``0xff`` as ``0`` with the alias ``xff``.

    :raises UsageError: when a literal has more than 64 bits.
    """
    data = sql.encode(errors="surrogateescape")
    done, parts = 0, []
    for at, kind in duckdb.tokenize(sql):
        found = _HEXADECIMAL.match(data, at) if kind == duckdb.token_type.numeric_const else None
        if found is None:
            continue
        number = int(found[1], 16)
        if number >> 64:
            raise UsageError(f"{found[0].decode()} has more than 64 bits")
        # Without the type it would be a HUGEINT, which no bit of a UBIGINT can be compared with.
        text = f"({number}::UBIGINT)" if number >> 63 else str(number)
        parts += [data[done:at], text.encode()]
        done = found.end()
    return b"".join([*parts, data[done:]]).decode(errors="surrogateescape")


def _expression(value: Value) -> str:
    """Return the SQL for ``value``, over the columns of a trace."""
    field = value.field
    stored = field if value.mask is None else f"({field} & {value.mask})"
    match value.form:
        case Form.WORD:
            sql = stored
        case Form.NUMBER:
            sql = f"{stored}::BIGINT"
        case Form.TRUTH:
            sql = f"{stored} <> 0"
        case Form.NAME:
            cases = " ".join(f"WHEN {number} THEN '{name}'" for number, name in value.names.items())
            sql = f"CASE {stored} {cases} END"
        case Form.LABEL:
            sql = f"(SELECT text FROM labels WHERE number = {stored})"
        case Form.PROCESS:
            sql = f"(SELECT name FROM processes WHERE number = {stored})"
        case Form.PID:
            sql = f"(SELECT pid FROM processes WHERE number = {stored})"
        case Form.PA:
            sql = f"CASE WHEN {stored} < {_FAULT} THEN {stored} END"
        case Form.CAUSE:
            fault = f"({(1 << 64) - 1} - {stored})::BIGINT"
            sql = f"CASE WHEN {stored} >= {_FAULT} THEN {fault} END"
    if value.needs:
        sql = f"CASE WHEN (sub & {int(value.needs)}) <> 0 THEN {sql} END"
    return f"{sql} AS {value.name}"


def _view(kind: KindDescription) -> str:
    return ", ".join([*_COMMON, *map(_expression, kind.values)])


VIEWS: dict[str, tuple[str, str]] = {
    description.plural: (schema.KIND_NAMES[kind], _view(description))
    for kind, description in KINDS.items()
}
"""Name of the kind and columns of each view."""


def run(trace: TraceReader, sql: str, limit: int | None = None) -> Rows:
    """Return the answer of one SELECT over ``trace``, at most ``limit`` rows of it.

    :raises UsageError: when the SQL is wrong or would do more than read.
    :raises TraceDamage: when a segment is damaged.
    :raises StorageError: when object storage does not give one.
    """
    folder = ExitStack()
    try:
        connection = _connect(trace, folder)
        return select(connection, sql, limit, ["events", *VIEWS])
    except UsageError as error:
        lost = trace.location.lost_while_scanned(str(error.__cause__ or ""))
        if lost is not None:
            raise lost from None
        raise
    finally:
        folder.close()


def select(connection: Any, sql: str, limit: int | None, views: Sequence[str]) -> Rows:
    """Return the answer of one SELECT, at most ``limit`` rows of it, and close the connection.

    :param connection: of DuckDB, with nothing in reach but what a query may read.
    :param views: the names of what can be read, for messages.
    :raises UsageError: when the SQL is wrong or would do more than read.
    """
    try:
        for setting in (
            "python_enable_replacements = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")
        statements = connection.extract_statements(_decimal(sql))
        if len(statements) != 1 or statements[0].type not in (
            duckdb.StatementType.SELECT,
            duckdb.StatementType.EXPLAIN,
        ):
            raise UsageError(_ONE_SELECT)
        # EXPLAIN ANALYZE executes what it explains.
        connection.execute("BEGIN TRANSACTION READ ONLY")
        answer = connection.execute(statements[0])
        columns = [column[0] for column in answer.description]
        addresses = [str(column[1]) == "UBIGINT" for column in answer.description]
        rows = answer.fetchall() if limit is None else answer.fetchmany(limit + 1)
    except duckdb.TransactionException as error:
        raise UsageError(_ONE_SELECT) from error
    except duckdb.Error as error:
        text = str(error).splitlines()[0]
        if isinstance(error, duckdb.ParserException | duckdb.CatalogException):
            raise UsageError(f"{text} (views: {', '.join(views)})") from error
        raise UsageError(text) from error
    finally:
        connection.close()
    shown = rows if limit is None else rows[:limit]
    plain = [[_plain(value) for value in row] for row in shown]
    return Rows(columns, addresses, plain, more=len(rows) > len(shown))


def _connect(trace: TraceReader, folder: ExitStack) -> Any:
    for segment in trace.segments:
        segment.load()  # DuckDB could skip rows silently if a footer is damaged.
    names = [segment.name for segment in trace.segments]
    files, file_system = trace.location.for_scan(names, folder)
    # In a trace of an older version the columns that it lacks are null.
    columns = pa.schema([column.with_nullable(True) for column in schema.CURRENT.schema])
    events = ds.dataset(files, schema=columns, format="parquet", filesystem=file_system)
    labels = pa.table(
        {
            "number": pa.array(trace.labels.keys(), pa.int64()).cast(pa.uint64(), safe=False),
            "text": pa.array(trace.labels.values(), pa.string()),
        }
    )
    processes = pa.table(
        {
            "number": pa.array(trace.processes.keys(), pa.uint64()),
            "pid": pa.array((one.pid for one in trace.processes.values()), pa.int64()),
            "name": pa.array((one.name for one in trace.processes.values()), pa.string()),
        }
    )
    connection = duckdb.connect(":memory:")
    connection.register("events", events)
    connection.register("labels", labels)
    connection.register("processes", processes)
    for name, (kind, columns) in VIEWS.items():
        connection.execute(
            f"CREATE VIEW {name} AS SELECT {columns} FROM events WHERE kind = '{kind}'"
        )
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
