"""Traces of every version that the tool says it reads, written here as docs/trace.md has them."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trace_tables import DOCUMENT, updated

from cosim.trace import query, reader, schema
from cosim.trace.manifest import NAME
from cosim.trace.reader import TraceReader
from hypervisor_model.events import FIELDS, Content, EventBatch, empty
from tests.cosim.streams import ORIGIN, arbitrary_batch

KINDS_1 = (
    *("table_add", "table_entry", "table_drop", "pte_write", "fence"),
    *("satp_write", "access", "page_fault", "mark"),
)
KINDS_2 = (*KINDS_1, "envcfg_write")
KINDS_3 = (*KINDS_2, "fence_order")
KINDS_4 = (*KINDS_3, "remote_fence")


def segment(batch: EventBatch, first: int, version: int, names: tuple[str, ...]) -> bytes:
    """A segment; versions 1 to 3 have the same columns, version 4 has one more."""

    def small(name: str) -> Any:
        return pa.array(batch[name].tolist(), pa.uint8())

    def wide(name: str) -> Any:
        return pa.array([int(value) % (1 << 64) for value in batch[name]], pa.uint64())

    icount = [None if value == -1 else int(value) for value in batch["icount"]]
    kinds = [names[kind - 1] for kind in batch["kind"]]
    columns = {
        "event": pa.array(range(first, first + len(batch)), pa.int64()),
        "icount": pa.array(icount, pa.int64()),
        "hart": small("hart"),
        "priv": small("priv"),
        "kind": pa.array(kinds).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "sub": small("sub"),
        "flags": small("flags"),
        "size": small("size"),
        **{name: wide(name) for name in ("pc", "a", "b", "c")},
    }
    if version >= 4:
        columns["harts"] = pa.array(batch["harts"].tolist(), pa.uint16())
    fields = [pa.field(name, a.type, nullable=name == "icount") for name, a in columns.items()]
    table = pa.table(
        list(columns.values()), schema=pa.schema(fields, metadata={"lsp-cosim-trace": str(version)})
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def line(record: dict[str, Any]) -> bytes:
    def canonical(value: dict[str, Any]) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    return canonical({**record, "crc32": f"{zlib.crc32(canonical(record)):08x}"}) + b"\n"


def trace_1(folder: Path, batch: EventBatch) -> None:
    """A trace of version 1, by gdb, from before the filter could be chosen."""
    origin = ORIGIN.to_json()
    origin["backend"] = "mi"
    del origin["stream"]["filter"]
    _write(folder, batch, 1, KINDS_1, origin)


def trace_2(folder: Path, batch: EventBatch) -> None:
    """A trace of version 2."""
    _write(folder, batch, 2, KINDS_2, ORIGIN.to_json())


def trace_3(folder: Path, batch: EventBatch) -> None:
    """A trace of version 3."""
    _write(folder, batch, 3, KINDS_3, ORIGIN.to_json())


def trace_4(folder: Path, batch: EventBatch) -> None:
    """A trace of version 4."""
    _write(folder, batch, 4, KINDS_4, ORIGIN.to_json())


def _write(
    folder: Path, batch: EventBatch, version: int, names: tuple[str, ...], origin: dict[str, Any]
) -> None:
    folder.mkdir()
    data = segment(batch, 0, version, names)
    (folder / "events-000000.parquet").write_bytes(data)
    kinds = {name: int((batch["kind"] == n).sum()) for n, name in enumerate(names, start=1)}
    marks = sorted(set(batch["a"][batch["kind"] == names.index("mark") + 1].tolist()))
    known = batch["icount"][batch["icount"] >= 0]
    records = [
        {
            "record": "header",
            "format": "lsp-cosim-trace",
            "version": version,
            "written_by": "lsp-cosim 0.1.0",
            "created": "2026-01-02T03:04:05+00:00",
            "origin": origin,
        },
        *({"record": "label", "number": mark, "text": f"mark {mark}"} for mark in marks),
        {
            "record": "segment",
            "file": "events-000000.parquet",
            "events": len(batch),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "kinds": {name: count for name, count in kinds.items() if count},
            "first_icount": int(known[0]),
            "last_icount": int(known[-1]),
        },
        {
            "record": "end",
            "ending": {
                "complete": True,
                "reason": None,
                "region": {},
                "stepped": None,
                "audit": None,
            },
        },
    ]
    (folder / NAME).write_bytes(b"".join(map(line, records)))


WRITERS = {
    1: (trace_1, KINDS_1, 256),
    2: (trace_2, KINDS_2, ORIGIN.stream.filter),
    3: (trace_3, KINDS_3, ORIGIN.stream.filter),
    4: (trace_4, KINDS_4, ORIGIN.stream.filter),
}
"""Of each version: its writer, its kinds, and the filter that its origin says."""


def test_there_is_a_trace_of_every_version() -> None:
    assert set(WRITERS) == set(schema.LAYOUTS)
    assert max(WRITERS) == schema.VERSION


@pytest.mark.parametrize("version", WRITERS)
def test_a_trace_of_each_version_is_read(version: int, tmp_path: Path) -> None:
    batch = arbitrary_batch(300, seed=version)
    batch["icount"][::5] = -1
    write, names, slots = WRITERS[version]
    batch["kind"] = (batch["kind"] - 1) % len(names) + 1
    for field in FIELDS:
        if field.since > version:
            batch[field.name] = -1 if field.content is Content.COUNT else 0
    write(tmp_path / "t", batch)
    trace = TraceReader(tmp_path / "t")
    assert trace.version == version
    assert np.concatenate([empty(0), *trace.batches()]).tobytes() == batch.tobytes()
    assert reader.verify(tmp_path / "t") == []
    assert trace.origin.stream.filter == slots, "256 from before the filter could be chosen"
    rows = query.run(trace, "SELECT pc, icount FROM events ORDER BY event").rows
    assert [row[0] for row in rows] == [int(pc) % (1 << 64) for pc in batch["pc"]]
    assert [row[1] for row in rows[:6]] == [
        None if count == -1 else count for count in batch["icount"][:6].tolist()
    ]


def test_a_segment_of_another_version_than_its_trace_is_refused() -> None:
    data = schema.CURRENT.encode(arbitrary_batch(3, seed=1), 0)
    other = schema.Layout(schema.VERSION + 1)
    with pytest.raises(ValueError, match=f"have version {schema.VERSION}, but its trace"):
        other.decode(data, 0)


def test_the_tables_of_the_document_are_those_of_the_description() -> None:
    text = DOCUMENT.read_text()
    assert updated(text) == text, "run scripts/trace_tables.py"
