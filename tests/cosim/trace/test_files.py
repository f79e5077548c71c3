"""Traces give back what they got, to us and to other tools."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture.processes import Process
from cosim.errors import ModelError, UsageError
from cosim.trace import describe, query, reader, schema
from cosim.trace.reader import TraceReader
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch, Kind, Satp, empty
from tests.cosim.streams import ENDING, ORIGIN, arbitrary_batch, batches, label_marks, write_trace


def read_all(trace: TraceReader) -> EventBatch:
    parts = list(trace.batches())
    return np.concatenate(parts) if parts else empty(0)


@settings(max_examples=25)
@given(st.lists(batches, max_size=5), st.integers(20, 90))
def test_round_trip_is_lossless(parts: list[EventBatch], segment_events: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "trace"
        with TraceWriter(folder, ORIGIN, segment_events=segment_events) as writer:
            for part in parts:
                label_marks(writer, part)
                writer.write(part)
            writer.close(ENDING)
        trace = TraceReader(folder)
        whole = np.concatenate([empty(0), *parts])
        assert read_all(trace).tobytes() == whole.tobytes()
        assert trace.events == len(whole)
        assert all(segment.events <= segment_events for segment in trace.segments)
        assert (trace.origin, trace.ending, trace.cut) == (ORIGIN, ENDING, None)
        assert reader.verify(folder) == []


def test_the_last_name_of_a_process_counts(tmp_path: Path) -> None:
    batch = empty(4)
    batch["kind"], batch["c"] = Kind.SATP_WRITE, [1, 2, 0, 7]
    batch["sub"][3] = Satp.VSATP
    with TraceWriter(tmp_path / "t", ORIGIN) as writer:
        writer.name({1: Process(5, "sh")})
        writer.write(batch)
        writer.name({1: Process(5, "ls"), 2: Process(6, "\x1b[31m<b>'\n")})
        writer.close(ENDING)
    trace = TraceReader(tmp_path / "t")
    assert trace.processes == {1: Process(5, "ls"), 2: Process(6, "\x1b[31m<b>'\n")}
    assert reader.verify(tmp_path / "t") == []
    answer = query.run(trace, "SELECT process, pid FROM satp_writes ORDER BY event")
    assert answer.rows == [["ls", 5], ["\x1b[31m<b>'\n", 6], [None, None], [None, None]]
    texts = [describe.details(event, {}, trace.processes) for event in batch]
    assert texts[0].endswith("process ls (pid 5)") and "process" not in texts[2] + texts[3]


def test_half_a_surrogate_in_a_name_is_made_text(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t", ORIGIN) as writer:
        writer.name({1: Process(5, "a\ud800")})
        writer.close(ENDING)
    assert TraceReader(tmp_path / "t").processes == {1: Process(5, "a\\ud800")}


def test_writing_does_not_import_pandas() -> None:
    # Arrow imports it if it can, and a short capture would wait for it.
    code = (
        "import sys; from cosim.trace import schema; from hypervisor_model.events import *;"
        "batch = empty(1); batch['kind'] = Kind.FENCE; schema.CURRENT.encode(batch, 0);"
        "print('pandas' in sys.modules)"
    )
    words = [sys.executable, "-c", code]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said == "False\n"


def test_an_old_block_is_written_before_it_is_full(tmp_path: Path) -> None:
    batch = arbitrary_batch(3, seed=1)
    batch["kind"] = Kind.FENCE
    with TraceWriter(tmp_path / "t", ORIGIN, flush_seconds=0) as writer:
        writer.write(batch)
        # Read by a second party while the writer still runs.
        assert read_all(TraceReader(tmp_path / "t")).tobytes() == batch.tobytes()
        writer.close(ENDING)


def test_what_was_recorded_survives_an_exception_and_says_why(tmp_path: Path) -> None:
    batch = arbitrary_batch(70, seed=2)
    with (
        pytest.raises(RuntimeError),
        TraceWriter(tmp_path / "t", ORIGIN, segment_events=64) as writer,
    ):
        label_marks(writer, batch)
        writer.write(batch)
        raise RuntimeError("the guest panicked\nsecond line")
    trace = TraceReader(tmp_path / "t")
    assert read_all(trace).tobytes() == batch.tobytes()
    assert not trace.ending.complete
    assert trace.ending.reason == "the guest panicked"
    assert reader.verify(tmp_path / "t") == [
        f"{tmp_path}/t: the capture is incomplete: the guest panicked"
    ]


def test_a_folder_holds_one_trace(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", arbitrary_batch(10, seed=3))
    before = {path: path.read_bytes() for path in (tmp_path / "t").iterdir()}
    with pytest.raises(UsageError, match="holds a trace already"):
        TraceWriter(tmp_path / "t", ORIGIN)
    assert {path: path.read_bytes() for path in (tmp_path / "t").iterdir()} == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", 0), ("kind", max(Kind) + 1), ("kind", 255), ("icount", -2)],
)
def test_what_a_trace_cannot_hold_is_refused(field: str, value: int) -> None:
    batch = arbitrary_batch(5, seed=4)
    batch[field][2] = value
    with pytest.raises(ModelError):
        schema.CURRENT.encode(batch, 0)


@pytest.mark.parametrize(
    "written", [{}, {"row_group_size": 7}, {"write_statistics": False}, {"max_rows_per_page": 3}]
)
@pytest.mark.parametrize("events", [0, 1, 20])
def test_columns_with_one_value(events: int, written: dict[str, Any]) -> None:
    batch = arbitrary_batch(20, seed=6)[:events]
    batch["hart"], batch["priv"], batch["harts"] = 3, 0, 0xFFFF
    data = schema.CURRENT.encode(batch, 5)
    assert schema.CURRENT.decode(data, 5, events).tobytes() == batch.tobytes()
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)), sink, **written)
    again = schema.CURRENT.decode(sink.getvalue().to_pybytes(), 5, events)
    assert again.tobytes() == batch.tobytes()


@pytest.mark.parametrize("kind", [0, 63])
def test_a_footer_with_a_wrong_type_is_refused(kind: int) -> None:
    # pyarrow ends the process if it is asked for the statistics of such a column.
    batch = arbitrary_batch(20, seed=6)
    batch["hart"] = 3
    data = bytearray(schema.CURRENT.encode(batch, 0))
    path = data.index(b"\x19\x18\x04hart")  # A list of one text, as Thrift writes it.
    at = data.rindex(b"\x15\x02\x19", 0, path) + 1  # The type INT32, in front of the encodings.
    data[at] = 2 * kind
    with pytest.raises(ValueError, match="not readable as Parquet"):
        schema.CURRENT.decode(bytes(data), 0, 20)


def test_each_column_is_one_page() -> None:
    def size(events: int) -> int:
        batch = empty(events)
        batch["kind"] = Kind.ACCESS
        return len(schema.CURRENT.encode(batch, 0))

    # What is the same in all rows takes a page or two each column, however many rows there are.
    assert size(200_000) < 1.2 * size(1000)


def test_other_tools_read_the_segments(tmp_path: Path) -> None:
    batch = arbitrary_batch(150, seed=5)
    batch["icount"][::7] = -1
    write_trace(tmp_path / "t", batch)
    files = str(tmp_path / "t" / "events-*.parquet")
    assert len(pandas.read_parquet(tmp_path / "t")) == 150  # The folder as a data set.
    frames = [
        polars.read_parquet(files).to_dict(as_series=False),
        duckdb.sql(f"SELECT * FROM read_parquet('{files}') ORDER BY event").fetchnumpy(),
        pandas.concat(map(pandas.read_parquet, sorted((tmp_path / "t").glob("*.parquet")))),
    ]
    names = [Kind(kind).name.lower() for kind in batch["kind"]]
    for frame in frames:
        assert [int(number) for number in frame["event"]] == list(range(150))
        assert [str(name) for name in frame["kind"]] == names
        for column in ("pc", "a", "b", "c"):
            expected = [value % 2**64 for value in batch[column].tolist()]
            assert [int(value) for value in frame[column]] == expected
        for column in ("hart", "priv", "sub", "flags", "size"):
            assert [int(value) for value in frame[column]] == batch[column].tolist()
    known = [None if value == -1 else value for value in batch["icount"].tolist()]
    assert frames[0]["icount"] == known


def test_the_examples_of_the_documentation(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    batch = arbitrary_batch(150, seed=5)
    write_trace(folder, batch)
    text = (Path(__file__).parents[3] / "docs" / "trace.md").read_text()
    text = text.replace("DIR/", f"{folder}/").replace('"DIR"', f'"{folder}"')
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(example, names)
    stores = int((batch["kind"] == Kind.PTE_WRITE).sum())
    assert names["stores"]["len"].sum() == stores
    assert names["per_page"].sum() == stores
    queries = re.findall(r'^cosim query \S+ "(.*?)"', text, re.MULTILINE)
    assert len(queries) == 3
    for sql in queries:
        assert query.run(TraceReader(folder), sql).columns
