"""Traces in Google's object storage, on a real emulator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cosim.errors import StorageError, StorageSilent, TraceError, UsageError
from cosim.trace import object_storage, query, reader
from cosim.trace.locate import locate
from cosim.trace.manifest import TraceDamage
from cosim.trace.reader import TraceReader
from cosim.trace.writer import TraceWriter
from tests.cosim.streams import ORIGIN, label_marks
from tests.cosim.trace.test_object_storage import some_batch, write
from tests.gcs_server import GcsServer, gcs_server
from tests.s3_server import Wire


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    folder = tmp_path_factory.mktemp("gs")
    (folder / "bucket").mkdir()
    with gcs_server(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "SILENCE_SECONDS", 1)


def test_a_trace_is_written_and_read(server: GcsServer, tmp_path: Path) -> None:
    place = locate(server.uri("bucket/some/t"))
    records = write(place)
    write(tmp_path / "t")
    for file in (tmp_path / "t").glob("*.parquet"):
        assert (server.folder / "bucket/some/t" / file.name).read_bytes() == file.read_bytes()
    trace = TraceReader(place)
    assert str(trace.location) == "gs://bucket/some/t"
    assert b"".join(batch.tobytes() for batch in trace.batches()) == records
    assert reader.verify(place) == []
    sql = "SELECT kind, count(*), sum(a % 1000) FROM events GROUP BY kind ORDER BY kind"
    assert query.run(trace, sql) == query.run(TraceReader(tmp_path / "t"), sql)
    with pytest.raises(UsageError, match="already holds a trace"):
        TraceWriter(place, ORIGIN)


def test_what_is_not_there(server: GcsServer) -> None:
    with pytest.raises(TraceError, match=r"^gs://bucket/none: there is nothing there"):
        TraceReader(locate(server.uri("bucket/none")))
    with pytest.raises(TraceError, match=r"^gs://other/t: there is no bucket other$"):
        TraceReader(locate(server.uri("other/t")))
    with pytest.raises(UsageError, match="there is no bucket other; make it first"):
        TraceWriter(locate(server.uri("other/t")), ORIGIN)


def test_a_segment_that_is_gone(server: GcsServer) -> None:
    place = locate(server.uri("bucket/cut"))
    write(place)
    (server.folder / "bucket/cut/events-000003.parquet").unlink()
    (missing,) = reader.verify(place)
    assert missing == "gs://bucket/cut/events-000003.parquet: this segment is missing"
    with pytest.raises(TraceDamage, match="this segment is missing"):
        query.run(TraceReader(place), "SELECT count(*) FROM events")


def test_storage_that_goes_away(server: GcsServer) -> None:
    between = Wire(server.address)
    place = locate(server.uri("bucket/gone", address=between.address))
    batch = some_batch(1500)
    with (
        pytest.raises(
            StorageError, match=r"gone/events-000001\.parquet: cannot be written: nobody "
        ),
        TraceWriter(place, ORIGIN, segment_events=1000) as writer,
    ):
        label_marks(writer, batch)
        writer.write(batch)
        between.close()
        writer.write(batch)
    trace = TraceReader(locate(server.uri("bucket/gone")))
    assert trace.cut and trace.events == 1000
    with pytest.raises(StorageSilent, match="nobody answers there; check the network"):
        TraceReader(place)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a server that answers everything with ``status``, and quotes a secret."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b"hidden123")

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "message", "later"),
    [
        (401, "no right to do that, or no credentials (UNAUTHENTICATED); check GOOGLE_", False),
        (403, "no right to do that, or no credentials (PERMISSION_DENIED); check GOOGLE_", False),
        (503, "it cannot be reached (UNAVAILABLE); check the network and the endpoint", True),
    ],
)
def test_what_a_server_refuses(status: int, message: str, later: bool) -> None:
    with answering(status) as address:
        place = locate(f"gs://anonymous@bucket/t?scheme=http&endpoint_override={address}")
        for attempt in (TraceReader, lambda place: TraceWriter(place, ORIGIN)):
            with pytest.raises(StorageError) as caught:
                attempt(place)
            assert message in str(caught.value) and "hidden" not in str(caught.value)
            assert isinstance(caught.value, StorageSilent) == later


def test_credentials_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
    with pytest.raises(StorageError, match=r"no credentials .*; check GOOGLE_APPLICATION_CREDEN"):
        TraceReader(locate("gs://bucket/t"))
