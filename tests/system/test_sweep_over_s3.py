"""A sweep over a trace in object storage, on a real S3 server that goes away or refuses a key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweep_kills
from bench_replay import synthetic
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.sweep import result_files, worker
from tests.s3_server import S3Server, Wire, s3_server, wire
from tests.system.dask_scheduler import dask_scheduler

pytestmark = pytest.mark.system

TASKS = 8
FILE = f"""
[sweep]
models = ["native"]
per_task = 1
[sweep.traces]
made = "PLACE"
[sweep.matrix]
machine.footprint_data = {list(range(TASKS))}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small trace, and the same one in a bucket."""
    made = tmp_path_factory.mktemp("sweep")
    synthetic(made / "local", 20_000)
    shutil.copytree(made / "local", made / "s3/bucket/made")
    (made / "local.toml").write_text(FILE.replace("PLACE", "local"))
    (made / "s3.toml").write_text(FILE.replace("PLACE", "s3://bucket/made"))
    return made


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with dask_scheduler() as address:
        yield address


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3Server]:
    with s3_server(folder / "s3") as server:
        yield server


@pytest.fixture
def between(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The wire to the server, which the environment names."""
    with wire(server) as made:
        for name, value in server.environment(address=made.address).items():
            monkeypatch.setenv(name, value)
        yield made


def sweep(folder: Path, name: str, output: str, scheduler: str) -> Any:
    given = ["sweep", str(folder / name), "-o", str(folder / output), "--scheduler", scheduler]
    return CliRunner().invoke(cosim, given, standalone_mode=False, catch_exceptions=False)


def table(folder: Path) -> list[dict[str, Any]]:
    """The rows of a sweep, without what says where the trace is."""
    return [{**row, "trace_path": ""} for row in sweep_kills.table(folder)]


def after(monkeypatch: pytest.MonkeyPatch, tasks: int, happens: Any) -> None:
    """Let something happen when so many tasks have ended."""
    whole = result_files.write_rows
    ended = 0

    def write_rows(*given: Any) -> None:
        nonlocal ended
        whole(*given)
        ended += 1
        if ended == tasks:
            happens()

    monkeypatch.setattr(worker, "write_rows", write_rows)


def test_rows_are_those_of_a_local_trace(
    folder: Path, scheduler: str, server: S3Server, between: Wire
) -> None:
    assert sweep(folder, "local.toml", "local-rows", scheduler).return_value == 0
    assert between.received == 0
    assert sweep(folder, "s3.toml", "s3-rows", scheduler).return_value == 0
    assert table(folder / "s3-rows") == table(folder / "local-rows")
    size = sum(file.stat().st_size for file in (folder / "local").iterdir())
    # Each task reads the trace from the server; nobody keeps a copy.
    assert between.received > TASKS * size
    for file in (folder / "s3-rows").rglob("*"):
        if file.is_file():
            assert server.secret.encode() not in file.read_bytes(), file


def test_rights_that_are_withdrawn_end_it_and_the_next_one_goes_on(
    folder: Path, scheduler: str, between: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(folder / "s3") as other, monkeypatch.context() as patch:
        after(patch, 3, lambda: between.lead_to(other))
        done = sweep(folder, "s3.toml", "refused", scheduler)
    assert done.return_value == 3
    assert f"3 of {TASKS} rows are there" in done.output
    said = [line for line in done.stderr.splitlines() if "cosim: made" in line]
    assert len(said) == 2 and "no right to do that, or no valid key" in said[0]
    assert "its other tasks are not started" in said[1]
    with s3_server(folder / "s3") as again:
        for name, value in again.environment().items():
            monkeypatch.setenv(name, value)
        rest = sweep(folder, "s3.toml", "refused", scheduler)
    assert rest.return_value == 0
    assert f"{TASKS} of {TASKS} rows are there, {TASKS - 3} of them new" in rest.output


def test_a_server_that_comes_back_costs_no_row(
    folder: Path,
    scheduler: str,
    server: S3Server,
    between: Wire,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            between.lead_to(server)

    monkeypatch.setattr(worker, "_sleep", sleep)
    after(monkeypatch, 3, lambda: between.lead_to(None))
    done = sweep(folder, "s3.toml", "patient", scheduler)
    assert done.return_value == 0
    assert waits == [1.0, 2.0]
    assert f"{TASKS} of {TASKS} rows are there" in done.output
