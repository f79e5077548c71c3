"""SQL over the results of a sweep, also while the sweep goes on."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cosim.errors import UsageError
from cosim.sweep.result_files import RESULTS
from cosim.sweep.row_schema import SCHEMA
from cosim.trace.query import Rows, select

TABLE = "results"
"""The name of the only table."""


def run(folder: Path, sql: str, limit: int | None = None) -> Rows:
    """Return the answer of one SELECT over the table ``results``, at most ``limit`` rows of it.

    :param folder: of the sweep.
    :raises UsageError: when there are no results yet, the SQL is wrong or would do more than read.
    """
    files = sorted(str(file) for file in (folder / RESULTS).glob("*.parquet"))
    if not files:
        raise UsageError(f"{folder}: the sweep has no results yet")
    for file in files:
        try:
            pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{file}: is damaged ({error}); remove it and sweep again") from error
    connection = duckdb.connect(":memory:")
    connection.register(TABLE, ds.dataset(files, schema=SCHEMA, format="parquet"))
    return select(connection, sql, limit, [TABLE])
