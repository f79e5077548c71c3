"""SQL over the results of a sweep, also while the sweep goes on."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.dataset as ds

from cosim.sweep.result_files import files_of
from cosim.sweep.row_schema import SCHEMA
from cosim.trace.query import Rows, select

TABLE = "results"
"""The name of the only table."""


def run(folder: Path, sql: str, limit: int | None = None) -> Rows:
    """Return the answer of one SELECT over the table ``results``, at most ``limit`` rows of it.

    :param folder: of the sweep.
    :raises UsageError: when there are no results yet, the SQL is wrong or would do more than read.
    """
    files = files_of(folder)
    connection = duckdb.connect(":memory:")
    connection.register(TABLE, ds.dataset(files, schema=SCHEMA, format="parquet"))
    return select(connection, sql, limit, [TABLE])
