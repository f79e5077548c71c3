"""The columns of a trace: the records of :mod:`hypervisor_model.events` as Parquet, and back.

Each event is one row, each field one column.  Nothing is merged or derived, so the file says
exactly what the source said.  Only the number of the event is added, because SQL knows no order.
The columns follow from :data:`hypervisor_model.events.FIELDS`:

================ ================= =================================================
content          Parquet type      note
================ ================= =================================================
``COUNT``        INT64, optional   null if unknown (-1 in the record)
``WORD``         UINT_64           the same 64 bits
``NUMBER``       UINT_8 and so on  as wide as in the record
``KIND``         STRING            the name of the kind
================ ================= =================================================

The key-value metadata ``lsp-cosim-trace`` of each file holds the version of its columns.  A field
or kind that is added gets the next version (``since``), and :data:`LAYOUTS` has one layout for each
version, which reads the files of that version.

Encodings were chosen by measurement (``scripts/bench_replay.py --encodings`` repeats it):
``event`` and ``icount`` as deltas, small columns by dictionary, the rest plain, zstd level 3, and
each column of a segment as one page.  A boot of Linux with accesses takes 1.7 bytes per event.  In
pages of 20,000 rows, which are Arrow's default, with zstd level 1 it took 2.3, took as long to
write, and 1.1 times as long to read.  zstd level 6 saves another eighth, and writing takes 1.4
times as long.  Row groups of 65,536 events are larger and no faster.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hypervisor_model.errors import ModelError
from hypervisor_model.events import (
    FIELDS,
    KINDS,
    Content,
    EventBatch,
    Field,
    Kind,
    KindDescription,
    record,
)

METADATA_KEY = b"lsp-cosim-trace"
NUMBER = "event"
"""The column with the number of the event in the trace, from 0."""

_PIECE = 8192
"""Events that are put together at a time."""

_PAGE_BYTES = 1 << 24
"""More than any column of a segment takes before it is compressed."""

_UNSIGNED = {"uint8": pa.uint8(), "uint16": pa.uint16(), "uint32": pa.uint32()}


class Layout:
    """The columns of one version of traces; writes and reads its files.

    :param version: the version; fields and kinds that came later have no place in it.
    :param fields: the description of the record.
    :param kinds: the description of the kinds.
    """

    def __init__(
        self,
        version: int,
        fields: Sequence[Field] = FIELDS,
        kinds: Mapping[Kind, KindDescription] = KINDS,
    ) -> None:
        self.version = version
        self._event = record(fields)
        self._all = tuple(fields)
        columns = [field for field in fields if field.column is not None and field.since <= version]
        self.fields = sorted(columns, key=lambda field: field.column or 0)
        """The fields that it stores, in the order of the columns."""
        self._kinds = {
            int(kind): kind.name.lower() for kind in sorted(kinds) if kinds[kind].since <= version
        }
        number = pa.field(NUMBER, pa.int64(), nullable=False)
        self.schema: Any = pa.schema(
            [number, *map(_column_field, self.fields)],
            metadata={METADATA_KEY: str(version).encode()},
        )
        """The Arrow schema of each segment."""

    def encode(self, batch: EventBatch, first: int) -> bytes:
        """Return ``batch`` as the bytes of one Parquet file.

        :param first: the number of its first event.
        :raises ModelError: when a record is not one that ``events.py`` defines (an unknown kind, a
            count below -1): a trace must give back what it got.
        """
        columns = {NUMBER: _array(np.arange(first, first + len(batch)))}
        for field in self._all:
            values = np.ascontiguousarray(batch[field.name])
            if field in self.fields:
                columns[field.name] = self._encoded(field, values)
        table = pa.Table.from_arrays(
            [columns[name] for name in self.schema.names], schema=self.schema
        )
        small = [f.name for f in self.fields if f.content in (Content.NUMBER, Content.KIND)]
        counts = [f.name for f in self.fields if f.content is Content.COUNT]
        wide = [f.name for f in self.fields if f.content is Content.WORD]
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            compression="zstd",
            compression_level=3,
            use_dictionary=small,
            column_encoding={
                **dict.fromkeys([NUMBER, *counts], "DELTA_BINARY_PACKED"),
                **dict.fromkeys(wide, "PLAIN"),
            },
            # Each column is one page, which is decompressed at once.
            max_rows_per_page=max(1, len(batch)),
            data_page_size=_PAGE_BYTES,
            write_page_checksum=True,
        )
        data: bytes = sink.getvalue().to_pybytes()
        return data

    def decode(self, data: bytes, first: int, count: int | None = None) -> EventBatch:
        """Return the events in the bytes of one Parquet file of this version.

        Fields that came later are unknown: 0, or -1 for a count.

        :param first: the number that its first event must have.
        :param count: how many events it must hold; None if that is not known.
        :raises ValueError: when it is not a Parquet file of this layout; says what differs.
        """
        try:
            # Without threads and read-ahead: if one of Arrow's threads is still at work when Python
            # exits, it aborts the process.
            file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
            rows: int = file.metadata.num_rows
            # A small file may claim any number of rows, and each takes memory.
            if count is not None and rows != count:
                raise ValueError(f"holds {rows} events, not {count}")
            self._check_schema(file.schema_arrow)
            table = file.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"not readable as Parquet ({str(error).splitlines()[0]})") from error
        numbers = _whole(table.column(NUMBER)).to_numpy()
        if not np.array_equal(numbers, np.arange(first, first + rows)):
            raise ValueError(f"its events are not numbered from {first} on")
        unknown = {
            field.name: -1 if field.content is Content.COUNT else 0
            for field in self._all
            if field not in self.fields
        }
        columns = {
            field.name: self._decoded(field, _whole(table.column(field.name)))
            for field in self.fields
        }
        return self._records(rows, columns, unknown)

    def _check_schema(self, schema: Any) -> None:
        stored = (schema.metadata or {}).get(METADATA_KEY)
        if stored is None:
            raise ValueError("a Parquet file, but not a segment of a cosim trace")
        if stored != str(self.version).encode():
            said = stored.decode(errors="replace")
            raise ValueError(f"its columns have version {said}, but its trace {self.version}")
        if not schema.equals(self.schema):
            raise ValueError(f"its columns are not those of version {self.version}")

    def _records(
        self, rows: int, columns: Mapping[str, NDArray[Any]], unknown: Mapping[str, int]
    ) -> EventBatch:
        """Return records from the values of some fields, and the one value of each other."""
        # Most guests have one hart and call for no remote fences, so many a small field is the same
        # in all rows.  To find that takes far less time than to put it into each record.
        same = {
            name: values[0]
            for name, values in columns.items()
            if rows and values.itemsize < 8 and values.min() == values.max()
        }
        template = np.zeros(1, self._event)
        for name, value in {**unknown, **same}.items():
            template[name] = value
        batch: EventBatch = np.empty(rows, self._event)
        words = batch.view(np.int64).reshape(rows, self._event.itemsize // 8)
        # A column goes to every 48th byte.  In pieces, they all find a record in the cache.  Small
        # fields are put together first, because to store one byte takes as long as to store eight.
        together = np.repeat(template.view(np.int64)[:, np.newaxis], min(rows, _PIECE), axis=1)
        wide: dict[int, NDArray[Any]] = {}
        small: list[tuple[NDArray[Any], NDArray[Any]]] = []
        places: Mapping[str, Any] = self._event.fields or {}
        for name, values in columns.items():
            if name in same:
                continue
            kind, offset = places[name][:2]
            word, place = divmod(offset, 8)
            if kind.itemsize == 8:
                wide[word] = values
            else:
                step = 8 // kind.itemsize
                small.append((together[word].view(kind)[place // kind.itemsize :: step], values))
        for at in range(0, rows, _PIECE):
            count = min(_PIECE, rows - at)
            for target, values in small:
                target[:count] = values[at : at + count]
            for word, put in enumerate(together):
                words[at : at + count, word] = (
                    wide[word][at : at + count] if word in wide else put[:count]
                )
        return batch

    def _encoded(self, field: Field, values: Any) -> Any:
        match field.content:
            case Content.COUNT:
                if len(values) and values.min() < -1:
                    raise ModelError(
                        f"an event has a negative {field.name}; only -1 (unknown) is allowed"
                    )
                return _array(values, values != -1)
            case Content.WORD:
                return _array(values.view(np.uint64))
            case Content.KIND:
                unknown = set(np.unique(values).tolist()) - set(self._kinds)
                if unknown:
                    raise ModelError(
                        f"an event has the unknown kind {min(unknown)}; a trace cannot hold it"
                    )
                codes = np.zeros(256, dtype=np.int8)
                codes[list(self._kinds)] = np.arange(len(self._kinds))
                names = _texts(self._kinds.values())
                return pa.DictionaryArray.from_arrays(_array(codes[values]), names)
            case _:
                return _array(values)

    def _decoded(self, field: Field, column: Any) -> Any:
        match field.content:
            case Content.COUNT:
                values = (column.fill_null(-1) if column.null_count else column).to_numpy()
                if len(values) and values.min() < -1:
                    raise ValueError(f"a {field.name} is negative")
                return values
            case Content.WORD:
                return column.to_numpy().view(np.int64)
            case Content.KIND:
                numbers = {name: number for number, name in self._kinds.items()}
                try:
                    known = [numbers[name] for name in column.dictionary.to_pylist()]
                except KeyError as error:
                    raise ValueError(f"unknown kind {error}") from error
                return np.array(known, dtype=np.uint8).take(column.indices.to_numpy())
            case _:
                return column.to_numpy()


def _whole(column: Any) -> Any:
    """Return a column of a table as one array; if it is one already, without a copy."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _array(values: Any, known: Any = None) -> Any:
    """Return ``values`` as an Arrow array, without a copy.

    ``pa.array`` would import pandas if it is installed, and a short capture would wait for it.

    :param known: which values are not null; None: all.
    """
    valid = None
    if known is not None and not known.all():
        valid = pa.py_buffer(np.packbits(known, bitorder="little"))
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)])


def _texts(texts: Collection[str]) -> Any:
    """Return ``texts`` as an Arrow array."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    )


def _column_field(field: Field) -> Any:
    match field.content:
        case Content.COUNT:
            return pa.field(field.name, pa.int64())
        case Content.WORD:
            return pa.field(field.name, pa.uint64(), nullable=False)
        case Content.KIND:
            return pa.field(field.name, pa.dictionary(pa.int8(), pa.string()), nullable=False)
        case _:
            return pa.field(field.name, _UNSIGNED[field.type], nullable=False)


VERSION = max([field.since for field in FIELDS] + [kind.since for kind in KINDS.values()])
"""The version that this tool writes."""

LAYOUTS: dict[int, Layout] = {version: Layout(version) for version in range(1, VERSION + 1)}
"""Every version that this tool reads, with the layout that reads it."""

CURRENT = LAYOUTS[VERSION]
"""The layout that this tool writes."""

KIND_NAMES: dict[int, str] = {int(kind): kind.name.lower() for kind in KINDS}
"""The text in the column ``kind``, by the number in the record."""


def count_kinds(batch: EventBatch) -> dict[str, int]:
    """Return how many events of each kind are in ``batch``, by name; without those that are 0."""
    counts = np.bincount(batch["kind"])
    return {KIND_NAMES[number]: int(count) for number, count in enumerate(counts) if count}
