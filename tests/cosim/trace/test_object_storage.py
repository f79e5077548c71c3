"""Traces in object storage, on a real S3 server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosim.errors import StorageError, TraceError, UsageError
from cosim.trace import query, reader
from cosim.trace.locate import locate
from cosim.trace.location import Location
from cosim.trace.manifest import TraceDamage
from cosim.trace.object_storage import ObjectStorage
from cosim.trace.reader import TraceReader
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import EventBatch, Kind
from tests.cosim.streams import ENDING, ORIGIN, arbitrary_batch, label_marks
from tests.s3_server import S3Server, s3_server, wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with s3_server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(name="place")
def _place(server: S3Server) -> Iterator[ObjectStorage]:
    yield ObjectStorage("s3://bucket/some/t")
    shutil.rmtree(server.folder / "bucket" / "some", ignore_errors=True)


@pytest.fixture(scope="module", name="ready")
def _ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace of 5000 events."""
    folder = tmp_path_factory.mktemp("ready") / "t"
    write(folder)
    return folder


@pytest.fixture
def trace(place: ObjectStorage, server: S3Server, ready: Path) -> Path:
    """The folder in which the server has the trace at ``place``: the objects are files."""
    return Path(shutil.copytree(ready, server.folder / "bucket/some/t"))


def some_batch(count: int) -> EventBatch:
    """Arbitrary events with few marks, since each has a line in the manifest."""
    batch = arbitrary_batch(count, 1)
    batch["kind"][10:][batch["kind"][10:] == Kind.MARK] = Kind.ACCESS
    return batch


def write(place: Path | Location, count: int = 5000) -> bytes:
    """A trace of ``count`` events, 1000 in each segment; return the records."""
    batch = some_batch(count)
    with TraceWriter(place, ORIGIN, segment_events=1000) as writer:
        label_marks(writer, batch)
        writer.write(batch)
        writer.close(ENDING)
    return batch.tobytes()


def test_what_is_written_is_the_files_of_a_folder(
    place: ObjectStorage, server: S3Server, ready: Path
) -> None:
    records = write(place)
    written = server.folder / "bucket/some/t"
    for file in ready.glob("*.parquet"):
        assert (written / file.name).read_bytes() == file.read_bytes()
    trace = TraceReader(place)
    assert b"".join(batch.tobytes() for batch in trace.batches()) == records
    assert trace.ending == ENDING
    assert reader.verify(place) == reader.verify(written) == []


def test_queries(place: ObjectStorage, trace: Path) -> None:
    for sql in (
        "SELECT kind, count(*), sum(a % 1000) FROM events GROUP BY kind ORDER BY kind",
        "SELECT count(*), max(s.event) FROM fences f JOIN satp_writes s ON f.event < s.event",
    ):
        answer = query.run(TraceReader(place), sql)
        assert answer == query.run(TraceReader(trace), sql)
        assert answer.rows[0][1] > 0


def test_damage_is_found_by_a_query_too(place: ObjectStorage, trace: Path) -> None:
    file = trace / "events-000003.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert len(reader.verify(place)) == 1
    with pytest.raises(TraceDamage, match=r"^s3://bucket/some/t/events-000003.parquet: .*damaged"):
        query.run(TraceReader(place), "SELECT sum(a % 10) FROM events")


def test_left_over_and_missing_segments(place: ObjectStorage, trace: Path) -> None:
    (trace / "events-000004.parquet").rename(trace / "events-000009.parquet")
    missing, left_over = reader.verify(place)
    assert missing == "s3://bucket/some/t/events-000004.parquet: this segment is missing"
    assert left_over.startswith("s3://bucket/some/t/events-000009.parquet: left over")


def test_a_writer_that_dies_leaves_a_cut_trace(place: ObjectStorage) -> None:
    writer = TraceWriter(place, ORIGIN, segment_events=1000)
    assert TraceReader(place).cut
    batch = some_batch(2500)
    label_marks(writer, batch)
    writer.write(batch)
    trace = TraceReader(place)
    assert trace.events == 2000
    assert trace.cut and not trace.ending.complete


def test_a_place_is_used_once(place: ObjectStorage, trace: Path) -> None:
    with pytest.raises(UsageError, match="already holds a trace"):
        TraceWriter(place, ORIGIN)


def test_nothing_there(place: ObjectStorage) -> None:
    with pytest.raises(TraceError, match="there is nothing there"):
        TraceReader(place)
    none = ObjectStorage("s3://other/t")
    with pytest.raises(TraceError, match=r"^s3://other/t: there is no bucket other$"):
        TraceReader(none)
    with pytest.raises(UsageError, match="there is no bucket other; make it first"):
        TraceWriter(none, ORIGIN)


@pytest.mark.usefixtures("trace")
def test_only_what_is_asked_for_is_read(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{between.address}")
        there = TraceReader(ObjectStorage("s3://bucket/some/t"))
        opened = between.received
        assert opened < there.size / 20
        next(there.batches())
        size = there.segments[0].size
        assert size < between.received - opened < size + 2000


def test_a_lost_connection_is_tried_again(
    server: S3Server, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wire(server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{between.address}")
        there = TraceReader(ObjectStorage("s3://bucket/some/t"))
        between.cut_after, between.cut_connections = 20_000, 1
        there.segments[0].load()
        assert between.cut_connections == 0
        between.cut_connections = 1 << 30
        before = between.connections
        with pytest.raises(StorageError, match=r"events-000001.parquet: cannot be read: "):
            there.segments[1].load()
        assert between.connections - before <= 10


def test_a_capture_whose_storage_goes_away(
    place: ObjectStorage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = some_batch(1500)
    with wire(server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{between.address}")
        with (
            pytest.raises(StorageError, match=r"^s3://bucket/some/t/events-00.*cannot be written"),
            TraceWriter(ObjectStorage("s3://bucket/some/t"), ORIGIN, segment_events=1000) as writer,
        ):
            label_marks(writer, batch)
            writer.write(batch)
            between.close()
            writer.write(batch)
    kept = TraceReader(place)
    assert kept.cut and kept.events == 1000
    assert next(kept.batches()).tobytes() == batch[:1000].tobytes()


@pytest.mark.parametrize("wrong", ["key", "secret"])
@pytest.mark.usefixtures("trace")
def test_no_right(server: S3Server, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    name = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}[wrong]
    monkeypatch.setenv(name, "hidden0123")
    stranger = ObjectStorage("s3://bucket/some/t")
    for attempt in (TraceReader, lambda place: TraceWriter(place, ORIGIN)):
        with pytest.raises(StorageError, match="no right to do that, or no valid key") as caught:
            attempt(stranger)
        for hidden in (server.key, server.secret, "hidden0123"):
            assert hidden not in str(caught.value)


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="nobody answers there; check the network"):
        TraceReader(ObjectStorage("s3://bucket/some/t"))


@pytest.mark.usefixtures("trace")
def test_a_key_in_the_uri_is_used_and_never_shown(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"bucket/some/t?scheme=http&endpoint_override={server.address}"
    here = locate(f"s3://{server.key}:{server.secret}@{where}")
    assert str(here) == "s3://bucket/some/t"
    assert TraceReader(here).events == 5000
    with pytest.raises(StorageError) as caught:
        TraceReader(locate(f"s3://{server.key}:wrong%2Fsecret@{where}"))
    for hidden in (server.key, server.secret, "wrong"):
        assert hidden not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://user:hidden@host/t", r"^ftp://\.\.\.: traces can be in a folder, or at s3:// or "),
        ("s3://", r"^s3://\.\.\.: names no bucket"),
        ("s3://user:hidden@", r"^s3://\.\.\.: names no bucket"),
        ("s3://hidden@b/t", "has a key or a secret, but not both"),
        ("s3://user:hid[den@b/t", "."),
        ("s3://user:hidden@b/t?secret_key=hidden", "'secret_key' is no option of s3:// URIs"),
        ("s3://user:hidden@b/t#x", "has a #"),
        ("s3://b/t?scheme=hidden", "the option scheme is http or https"),
        ("s3://b/t?endpoint_override=a:hidden@host", "without a user"),
        ("s3://b/t?endpoint_override=h:99999", r"endpoint_override is HOST:PORT, with a port in 1"),
        ("s3://b/t?endpoint_override=h:hidden", r"endpoint_override is HOST:PORT, with a port in "),
        ("s3://b/t?endpoint_override=h:0", r"endpoint_override is HOST:PORT, with a port in 1"),
        ("gs://user:hidden@b/t", "takes no key"),
        ("file://host/t", "write file:///PATH"),
    ],
)
def test_uris_that_cannot_be_used(uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        locate(uri)
    assert "hidden" not in str(caught.value) and "hid[den" not in str(caught.value)


@pytest.mark.parametrize("port", ["99999", "hidden", "0"])
def test_an_endpoint_with_a_port_that_cannot_be(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://host:{port}")
    with pytest.raises(
        UsageError, match=r"^AWS_ENDPOINT_URL: its port is not a number in 1..65535"
    ):
        locate("s3://b/t")
