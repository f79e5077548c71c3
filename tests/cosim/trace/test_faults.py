"""A trace that something happened to is read up to there, or refused; never read wrongly."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture.processes import Process
from cosim.errors import StorageError, TraceError
from cosim.trace import manifest, reader, schema
from cosim.trace.manifest import TraceDamage
from cosim.trace.reader import TraceReader
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch, Kind, empty
from tests.cosim.streams import ORIGIN, arbitrary_batch, label_marks, write_trace

ROOT = Path(__file__).parents[3]


def events_of(kind: Kind, count: int) -> EventBatch:
    batch = arbitrary_batch(count, seed=count)
    batch["kind"] = kind
    return batch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventBatch]:
    batch = arbitrary_batch(200, seed=6)
    folder = tmp_path_factory.mktemp("whole") / "trace"
    write_trace(folder, batch)
    return folder, batch


def read_prefix(folder: Path) -> tuple[EventBatch, bool]:
    """What can be read before the first error, and whether all of it was said to be whole."""
    parts = [empty(0)]
    try:
        trace = TraceReader(folder)
        parts.extend(trace.batches())
    except TraceError:
        return np.concatenate(parts), False
    return np.concatenate(parts), trace.ending.complete


@settings(max_examples=100)
@given(data=st.data())
def test_damage_anywhere_is_found(whole: tuple[Path, EventBatch], data: st.DataObject) -> None:
    original, batch = whole
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "trace"
        shutil.copytree(original, folder)
        path = data.draw(st.sampled_from(sorted(folder.iterdir())))
        content = bytearray(path.read_bytes())
        if data.draw(st.booleans(), label="truncate"):
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        else:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(
                st.integers(0, 7)
            )
            path.write_bytes(content)
        prefix, complete = read_prefix(folder)
        assert not complete
        assert prefix.tobytes() == batch[: len(prefix)].tobytes()
        try:
            assert reader.verify(folder) != []
        except TraceDamage:
            raise
        except TraceError:
            pass  # The header itself is gone: no trace any more.


def test_missing_segment(whole: tuple[Path, EventBatch], tmp_path: Path) -> None:
    shutil.copytree(whole[0], tmp_path / "t")
    (tmp_path / "t" / "events-000001.parquet").unlink()
    with pytest.raises(TraceDamage, match=r"events-000001\.parquet: this segment is missing"):
        list(TraceReader(tmp_path / "t").batches())
    assert len(reader.verify(tmp_path / "t")) == 1


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (99, f"trace version 99, but this tool reads up to {schema.VERSION}"),
        (0, "0 is not a version of a trace"),
        (-1, "-1 is not a version of a trace"),
        (True, "True is not a version of a trace"),
        (1.0, "1.0 is not a version of a trace"),
        (None, "None is not a version of a trace"),
    ],
)
def test_unreadable_version(
    whole: tuple[Path, EventBatch], tmp_path: Path, version: object, said: str
) -> None:
    shutil.copytree(whole[0], tmp_path / "t")
    path = tmp_path / "t" / manifest.NAME
    header, _, rest = path.read_bytes().partition(b"\n")
    record = json.loads(header)
    del record["crc32"]
    path.write_bytes(manifest.to_line({**record, "version": version}) + rest)
    with pytest.raises(TraceError, match=re.escape(said)):
        reader.verify(tmp_path / "t")


def _foreign_folder(folder: Path) -> None:
    folder.mkdir()
    pq.write_table(pa.table({"x": [1]}), folder / "x.parquet")


def _no_folder(folder: Path) -> None:
    pass


def _a_file(folder: Path) -> None:
    folder.write_text("x")


def _empty_folder(folder: Path) -> None:
    folder.mkdir()


def _foreign_manifest(folder: Path) -> None:
    folder.mkdir()
    (folder / manifest.NAME).write_bytes(manifest.to_line({"record": "header", "format": "other"}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_foreign_folder, "holds Parquet files but no _manifest"),
        (_no_folder, "no such folder"),
        (_a_file, "is a file"),
        (_empty_folder, "not a trace"),
        (_foreign_manifest, "not the manifest of a cosim trace"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "t")
    with pytest.raises(TraceError, match=message) as caught:
        TraceReader(tmp_path / "t")
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, TraceDamage)


def test_a_foreign_parquet_file_in_a_segments_place(
    whole: tuple[Path, EventBatch], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "t")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t" / "events-000000.parquet")
    with pytest.raises(TraceDamage, match="damaged"):
        list(TraceReader(tmp_path / "t").batches())


def test_a_manifest_cannot_name_files_outside(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", arbitrary_batch(1, seed=7))
    path = tmp_path / "t" / manifest.NAME
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        del line["crc32"]
        if line["record"] == "segment":
            line["file"] = "../../etc/passwd"
    path.write_bytes(b"".join(map(manifest.to_line, lines)))
    with pytest.raises(TraceError, match="not the name of a segment"):
        TraceReader(tmp_path / "t")


_ENDLESS_WRITER = """
import sys
from pathlib import Path
from tests.cosim.streams import ORIGIN, label_marks, arbitrary_batch
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import Kind
writer = TraceWriter(Path(sys.argv[1]), ORIGIN, segment_events=1000)
number = 0
while True:
    batch = arbitrary_batch(77, seed=number)
    batch["kind"] = Kind.ACCESS
    writer.write(batch)
    number += 1
    print(writer.events, flush=True)
"""


@pytest.mark.parametrize("events", [1, 3000, 9999])
def test_kill_9_leaves_the_whole_segments(tmp_path: Path, events: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_WRITER, str(tmp_path / "t")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= events:
                break
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    trace = TraceReader(tmp_path / "t")
    assert trace.cut is not None
    assert not trace.ending.complete
    assert trace.ending.reason is not None
    assert "cut" in trace.ending.reason
    got = np.concatenate([empty(0), *trace.batches()])
    assert events - 1000 < len(got) + 77
    for index in range(0, len(got) - 76, 77):
        expected = arbitrary_batch(77, seed=index // 77)
        expected["kind"] = Kind.ACCESS
        assert got[index : index + 77].tobytes() == expected.tobytes()


_LIMITED_WRITER = """
import resource, sys
from pathlib import Path
from tests.cosim.streams import ORIGIN, ENDING, arbitrary_batch
from cosim.errors import StorageError
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import Kind
small, large = arbitrary_batch(200, seed=1), arbitrary_batch(20000, seed=2)
small["kind"] = large["kind"] = Kind.FENCE
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with TraceWriter(Path(sys.argv[1]), ORIGIN) as writer:
        writer.write(small)
        writer.flush()
        writer.write(large)
        writer.flush()
except StorageError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def test_no_room_for_a_segment(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED_WRITER, str(tmp_path / "t")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "the trace cannot be written (File too large)" in done.stdout
    trace = TraceReader(tmp_path / "t")
    assert trace.events == 200
    assert trace.ending.reason == done.stdout.strip()
    assert {path.name for path in (tmp_path / "t").iterdir()} == {
        "events-000000.parquet",
        manifest.NAME,
    }


@pytest.mark.parametrize("partial", [False, True], ids=["nothing-written", "half-written"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
def test_a_full_disk_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool, forever: bool
) -> None:
    """Fail each write to the device in turn, as ENOSPC does; the trace stays readable."""
    batch = events_of(Kind.PTE_WRITE, 40)
    real_pwrite, real_fsync = os.pwrite, os.fsync
    calls = fail_at = 0

    def failing() -> bool:
        nonlocal calls
        calls += 1
        return calls == fail_at or (forever and calls > fail_at)

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if failing():
            if partial:
                real_pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_pwrite(fd, data, offset)

    def fsync(fd: int) -> None:
        if failing():
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(fd)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    for fail_at in range(1, 40):
        calls = 0
        folder = tmp_path / f"t{fail_at}"
        try:
            with TraceWriter(folder, ORIGIN, segment_events=10) as writer:
                label_marks(writer, batch)
                writer.write(batch)
        except StorageError as error:
            assert "No space left on device" in str(error)
        else:
            assert calls < fail_at
            return
        if not (folder / manifest.NAME).exists():
            continue  # Not even the header could be written.
        trace = TraceReader(folder)
        got = np.concatenate([empty(0), *trace.batches()])
        assert got.tobytes() == batch[: len(got)].tobytes()
        assert not trace.ending.complete
        assert not list(folder.glob("*.part"))
    pytest.fail("the writer made more calls than were tried")


# -- traces made to hurt ---------------------------------------------------------------------------


def _rewritten(folder: Path, kind: str, **changes: object) -> Path:
    """A trace whose records of this kind are changed, with right checksums."""
    batch = arbitrary_batch(5, seed=7)
    batch["kind"][0] = Kind.MARK
    write_trace(folder, batch, processes={1: Process(5, "sh")})
    path = folder / manifest.NAME
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        del line["crc32"]
        if line["record"] == kind:
            line.update(changes)
    path.write_bytes(b"".join(map(manifest.to_line, lines)))
    return folder


DEEP: list[object] = []
for _ in range(60):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("header", {"origin": []}),
        ("header", {"origin": {**ORIGIN.to_json(), "stream": [1]}}),
        ("header", {"origin": {**ORIGIN.to_json(), "machine": {"harts": "1"}}}),
        ("header", {"written_by": ["x"]}),
        ("segment", {"file": "events-\0.parquet"}),
        ("segment", {"file": "events-000000.parquet\n"}),
        ("segment", {"file": 3}),
        ("segment", {"events": "5"}),
        ("segment", {"events": None}),
        ("segment", {"events": -5}),
        ("segment", {"events": 1 << 40}),
        ("segment", {"events": True}),
        ("segment", {"bytes": {}}),
        ("segment", {"kinds": [["fence", 1]]}),
        ("segment", {"kinds": {"fence": "1"}}),
        ("segment", {"first_icount": "now"}),
        ("label", {"number": 1 << 64}),
        ("label", {"number": [0]}),
        ("label", {"text": 5}),
        ("process", {"number": -1}),
        ("process", {"pid": "1"}),
        ("process", {"pid": 1 << 31}),
        ("process", {"name": None}),
        ("end", {"ending": None}),
        ("end", {"ending": {"complete": 1}}),
        ("end", {"ending": {"complete": True, "region": {}, "audit": {"missed_writes": "0"}}}),
        ("end", {"ending": {"complete": True, "region": {"instructions": "x"}}}),
        ("segment", {"deep": DEEP}),
    ],
)
def test_a_wrong_type_behind_a_right_checksum(
    tmp_path: Path, kind: str, changes: dict[str, object]
) -> None:
    folder = _rewritten(tmp_path / "t", kind, **changes)
    with pytest.raises(TraceError) as caught:
        TraceReader(folder)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_fifo, _endless, _folder])
@pytest.mark.parametrize("name", ["events-000000.parquet", manifest.NAME])
def test_what_is_no_regular_file_is_not_read(
    make: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "t"
    write_trace(folder, arbitrary_batch(5, seed=7))
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(TraceError, match=r"not a regular file|Is a directory"):
        list(TraceReader(folder).batches())


def test_a_segment_that_claims_more_events_is_not_decoded(tmp_path: Path) -> None:
    folder = _rewritten(tmp_path / "t", "segment", events=6)
    with pytest.raises(TraceDamage, match="holds 5 events, not 6"):
        list(TraceReader(folder).batches())


def test_a_left_over_with_a_strange_name_takes_one_line(tmp_path: Path) -> None:
    write_trace(tmp_path / "t", arbitrary_batch(5, seed=7))
    (tmp_path / "t" / "events-1.parquet\n\x1b]0;x").touch()
    (finding,) = reader.verify(tmp_path / "t")
    assert finding.isprintable()
