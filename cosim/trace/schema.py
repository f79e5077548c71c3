"""The columns of a trace: :data:`hypervisor_model.events.EVENT` as a Parquet schema, and back.

One row an event, one column a field, nothing merged and nothing derived, so that the file says
exactly what the source said; only the number of the event is added, since SQL knows no order:

========= ================= ======================================================================
column    Parquet type      meaning
========= ================= ======================================================================
event     INT64             number of the event in the trace, from 0; program order
icount    INT64, optional   guest instructions retired before the event; null where unknown
hart      UINT_8            hart number
priv      UINT_8            effective privilege (0 U, 1 S, 3 M; 4 added in VS- and VU-mode)
kind      STRING            ``table_add``, ``table_entry``, ``table_drop``, ``pte_write``,
                            ``fence``, ``satp_write``, ``access``, ``page_fault``, ``mark``
sub       UINT_8            see ``hypervisor_model/events.py``; so for flags, size, a, b and c
flags     UINT_8
size      UINT_8
pc        UINT_64           program counter
a, b, c   UINT_64           addresses, entries, values; an access that faults has 2^64-1-cause in b
========= ================= ======================================================================

The key-value metadata ``lsp-cosim-trace`` of each file holds the version of this schema.

Encodings were chosen by measurement (``scripts/bench_replay.py --encodings`` repeats it):
``event`` and ``icount`` as deltas, small columns by dictionary, the rest plain, zstd level 1.  On
a boot of Linux with accesses that is 2.3 bytes an event; with the wide columns as dictionaries
2.9, as deltas 4.9, split into byte streams 2.3; snappy doubles it, zstd level 6 saves a fifth for
half the speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hypervisor_model.errors import ModelError
from hypervisor_model.events import EVENT, EventBatch, Kind

VERSION = 1
"""The schema and layout that this tool writes; it reads this and every older version."""

METADATA_KEY = b"lsp-cosim-trace"

_SMALL = ("hart", "priv", "sub", "flags", "size")
_WIDE = ("pc", "a", "b", "c")
_FIELDS = ("icount", "hart", "priv", "kind", "sub", "flags", "size", "pc", "a", "b", "c")

KIND_NAMES: dict[int, str] = {int(kind): kind.name.lower() for kind in Kind}
"""The text in the column ``kind``, by the number in the record."""

_KIND_NUMBERS = {name: number for number, name in KIND_NAMES.items()}
# Kinds are numbered from 1 without gaps, so a record's number less 1 indexes this dictionary.
_KIND_DICTIONARY = pa.array([KIND_NAMES[number] for number in sorted(KIND_NAMES)])


def _field(name: str) -> Any:
    if name in ("event", "icount"):
        return pa.field(name, pa.int64(), nullable=name == "icount")
    if name == "kind":
        return pa.field(name, pa.dictionary(pa.int8(), pa.string()), nullable=False)
    return pa.field(name, pa.uint8() if name in _SMALL else pa.uint64(), nullable=False)


SCHEMA = pa.schema(
    [_field(name) for name in ("event", *_FIELDS)], metadata={METADATA_KEY: str(VERSION).encode()}
)
"""The Arrow schema of every segment."""


def count_kinds(batch: EventBatch) -> dict[str, int]:
    """The number of events of each kind in ``batch``, by name; kinds that do not occur left out."""
    counts = np.bincount(batch["kind"])
    return {KIND_NAMES[number]: int(count) for number, count in enumerate(counts) if count}


def encode(batch: EventBatch, first: int) -> bytes:
    """``batch``, whose first event is number ``first``, as the bytes of one Parquet file.

    Raises ModelError when a record is not one that ``events.py`` defines (an unknown kind, a
    reserved field in use, an instruction count below -1): a trace must give back what it got.
    """
    kinds = batch["kind"]
    unknown = set(np.unique(kinds).tolist()) - set(KIND_NAMES)
    if unknown:
        raise ModelError(f"an event has the unknown kind {min(unknown)}; a trace cannot hold it")
    if batch["reserved"].any():
        raise ModelError("an event uses the reserved field; a trace cannot hold it")
    icount = np.ascontiguousarray(batch["icount"])
    if len(batch) and icount.min() < -1:
        raise ModelError("an event has a negative instruction count; only -1 (unknown) is allowed")
    columns: dict[str, Any] = {
        "event": pa.array(np.arange(first, first + len(batch))),
        "icount": pa.array(icount, mask=icount == -1),
    }
    columns["kind"] = pa.DictionaryArray.from_arrays(
        pa.array((kinds - 1).astype(np.int8)), _KIND_DICTIONARY
    )
    for name in _SMALL:
        columns[name] = pa.array(np.ascontiguousarray(batch[name]))
    for name in _WIDE:
        columns[name] = pa.array(np.ascontiguousarray(batch[name]).view(np.uint64))
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*_SMALL, "kind"],
        column_encoding={
            "event": "DELTA_BINARY_PACKED",
            "icount": "DELTA_BINARY_PACKED",
            **dict.fromkeys(_WIDE, "PLAIN"),
        },
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes, first: int) -> EventBatch:
    """The events in the bytes of one Parquet file, the first of which must be number ``first``.

    Raises ValueError, saying what differs, when it is no Parquet file of this schema.
    """
    try:
        # Without threads and read-ahead: one of Arrow's that is still at work when Python exits
        # aborts the process.
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not readable as Parquet ({str(error).splitlines()[0]})") from error
    stored = (table.schema.metadata or {}).get(METADATA_KEY)
    if stored is None:
        raise ValueError("a Parquet file, but not a segment of a cosim trace")
    if stored != str(VERSION).encode():
        raise ValueError(f"schema version {stored.decode(errors='replace')}, not {VERSION}")
    if not table.schema.equals(SCHEMA):
        raise ValueError("the columns are not those of the schema")
    batch = np.zeros(table.num_rows, dtype=EVENT)
    for name in _FIELDS:
        batch[name] = _column(table, name)
    if not np.array_equal(_column(table, "event"), np.arange(first, first + len(batch))):
        raise ValueError(f"its events are not numbered from {first} on")
    return batch


def _column(table: Any, name: str) -> Any:
    column = table.column(name).combine_chunks()
    if name == "kind":
        codes = column.indices.to_numpy()
        try:
            lookup = [_KIND_NUMBERS[text] for text in column.dictionary.to_pylist()]
        except KeyError as error:
            raise ValueError(f"unknown kind {error}") from error
        return np.array(lookup, dtype=np.uint8)[codes]
    if name == "icount":
        return column.fill_null(-1).to_numpy()
    values = column.to_numpy()
    return values.view(np.int64) if name in _WIDE else values
