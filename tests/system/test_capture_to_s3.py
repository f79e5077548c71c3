"""A real guest's trace in a bucket of a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.s3_server import s3_server
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


def test_a_trace_in_a_bucket_is_as_good_as_one_in_a_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    logs = tmp_path / "logs"
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    where = "s3://bucket/traces/micro"
    with s3_server(tmp_path / "s3") as server:
        environment = {**home.environment(), **server.environment()}
        capture = ("capture", "micro", "--backend", "plugin", "-o", where, "--logs", logs, "--json")
        captured = run(capture, environment)
        assert captured.status == 0, captured.stderr
        verified = run(("trace", "verify", where), environment)
        assert verified.stderr == f"{where}: complete, all checksums match\n"
        replayed = run(("replay", where, "--json"), environment)
        assert replayed.status == 0, replayed.stderr
    # The objects are files, and the server has gone.
    local = run(("replay", server.folder / "bucket/traces/micro", "--json"), home.environment())
    assert replayed.stdout == local.stdout
    assert replayed.document["events"] == json.loads(captured.stdout)["events"]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"_manifest.jsonl", "events-000000.parquet"} <= {path.name for path in kept}
    assert any(path.is_relative_to(logs) for path in kept)
    for path in kept:
        data = path.read_bytes()
        assert server.key.encode() not in data and server.secret.encode() not in data, path
