"""What is missing of a sweep, and who reads a trace together."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from bench_replay import synthetic

from cosim.sweep import result_files, task_plan, worker
from cosim.sweep.grid import Configuration, configuration
from cosim.sweep.row_schema import SCHEMA
from cosim.sweep.task_plan import SweptTrace, Task, TaskPlan, make_plan, models_that_fit
from cosim.sweep.worker import greet, run_task
from tests.cosim.streams import arbitrary_batch, write_trace

CODE = task_plan.code_version()


def test_threads_of_a_worker_may_ask_for_the_version_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = threading.Lock()

    def digest(*_: object) -> str:
        alone = busy.acquire(blocking=False)
        assert alone, "two threads parse at once, which Python 3.11 cannot do"
        time.sleep(0.02)
        busy.release()
        return CODE

    monkeypatch.setattr(task_plan, "digest", digest)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: task_plan.code_version(), range(8))) == [CODE] * 8


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> SweptTrace:
    folder = tmp_path_factory.mktemp("trace") / "t"
    synthetic(folder, 5_000)
    return SweptTrace.read("made", str(folder), {"append": "x"})


def configurations(count: int, costs: int = 1) -> list[Configuration]:
    return [
        configuration("native", {}, {"tlb": {"data": [16, 1 + ways]}}, {"exit": cost})
        for ways in range(count)
        for cost in range(costs)
    ]


def plan(
    folder: Path, trace: SweptTrace, wanted: list[Configuration], done: set[str], most: int = 16
) -> TaskPlan:
    return make_plan(folder, [trace], wanted, done, code=CODE, version="1", workers=2, most=most)


def test_tasks_are_shared_out_evenly(tmp_path: Path, trace: SweptTrace) -> None:
    few = plan(tmp_path, trace, configurations(3), set())
    assert [len(task.wanted) for task in few.tasks] == [1, 1, 1]
    many = plan(tmp_path, trace, configurations(100), set())
    assert {len(task.wanted) for task in many.tasks} <= {12, 13}
    least = plan(tmp_path, trace, configurations(100), set(), most=5)
    assert len(least.tasks) == 20
    keys = [key for task in many.tasks for one in task.wanted for key, _ in one.rows]
    assert len(set(keys)) == 100


def test_cost_tables_need_no_replay(tmp_path: Path, trace: SweptTrace) -> None:
    made = plan(tmp_path, trace, configurations(2, costs=3), set())
    assert made.rows == 6
    assert sum(len(task.wanted) for task in made.tasks) == 2
    assert made.work == 2 * trace.facts.events


def test_only_what_is_missing_is_planned(tmp_path: Path, trace: SweptTrace) -> None:
    wanted = configurations(4, costs=2)
    done = {trace.key(one, CODE) for one in wanted[:3]}
    made = plan(tmp_path, trace, wanted, done)
    assert (made.rows, made.done) == (8, 3)
    assert sum(task.rows for task in made.tasks) == 5
    assert plan(tmp_path, trace, wanted, {trace.key(one, CODE) for one in wanted}).tasks == ()


def test_keys_follow_what_counts_depend_on(trace: SweptTrace) -> None:
    one = configuration("shadow", {}, {}, {})
    same = configuration("shadow:roots=all", {}, {"setup": "h"}, {"exit": 1000.0})
    others = [
        configuration("shadow", {"roots": 1}, {}, {}),
        configuration("shadow", {}, {"walk_cache_ways": 4}, {}),
        configuration("shadow", {}, {}, {"exit": 1}),
        configuration("native", {}, {}, {}),
    ]
    keys = [trace.key(other, CODE) for other in others]
    other_trace = replace(trace, facts=trace.facts._replace(sha256="0"))
    keys += [trace.key(one, "other code"), other_trace.key(one, CODE)]
    # The machine that is written out is the trace's own.
    assert trace.key(same, CODE) == trace.key(one, CODE)
    assert len({trace.key(one, CODE), *keys}) == 7


def test_the_checksum_follows_every_event(tmp_path: Path) -> None:
    batch = arbitrary_batch(20, 1)
    batch["kind"] = 1
    sums = set()
    for number in range(2):
        batch["a"][7] = number
        write_trace(tmp_path / str(number), batch)
        sums.add(SweptTrace.read("t", str(tmp_path / str(number))).facts.sha256)
    write_trace(tmp_path / "copy", batch)
    reader = task_plan.open_trace(str(tmp_path / "copy"))
    assert len(sums) == 2 and task_plan.trace_checksum(reader) in sums


def test_models_that_fit_a_worker() -> None:
    assert models_that_fit(None) > 1000
    assert models_that_fit(1) == 1
    assert 1 < models_that_fit(1 << 30) < models_that_fit(8 << 30)


@pytest.fixture
def task(tmp_path: Path, trace: SweptTrace) -> Task:
    result_files.prepare(tmp_path)
    (made,) = plan(tmp_path, trace, configurations(1, costs=2), set()).tasks
    return made


def test_a_task_writes_one_file_of_rows(tmp_path: Path, task: Task, trace: SweptTrace) -> None:
    report = run_task(task)
    assert (report.rows, report.failures) == (2, ())
    (file,) = (tmp_path / "results").iterdir()
    assert file.name == f"{task.name}.parquet"
    table = pq.read_table(file)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row["cost_exit"] for row in rows] == [0, 1]
    for row in rows:
        assert (row["trace"], row["trace_sha256"]) == ("made", trace.facts.sha256)
        assert (row["policy"], row["tlb_data_sets"], row["tlb_data_ways"]) == ("native", 16, 1)
        assert dict(row["capture"]) == {"append": "x"}
        counts = json.loads(row["counts"])
        assert row["tlb_misses"] == counts["tlb_misses"] > 0
        assert row["exits"] == 0
        # The policy has no such exit, and the machine no walk cache: not 0.
        assert row["exits_shadow_fill"] is None and row["walk_cache_hits"] is None
        assert "walk_cache_hits" in dict(row["reasons"])
        assert row["cycles_total"] == 20 * row["walk_refs"]
    found = duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/results/*.parquet'").fetchall()
    assert found == [(2,)]
    assert result_files.known_keys(tmp_path, CODE) == {key for key, _ in task.wanted[0].rows}


def test_a_task_done_twice_is_one_file(tmp_path: Path, task: Task) -> None:
    run_task(task)
    run_task(task)
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_a_trace_that_changes_meanwhile_gives_no_rows(tmp_path: Path, task: Task) -> None:
    other = replace(task, trace=task.trace._replace(sha256="0" * 64))
    report = run_task(other)
    assert report.rows == 0
    (failure,) = report.failures
    assert "has changed since" in failure.why and failure.exit_status == 2
    assert not list((tmp_path / "results").iterdir())


def test_a_worker_of_another_version_refuses(task: Task) -> None:
    (failure,) = run_task(replace(task, code="other")).failures
    assert "another version" in failure.why and failure.exit_status == 3


def test_a_full_disk_is_reported(tmp_path: Path, task: Task) -> None:
    """As far as a task sees it: the file cannot be made."""
    (tmp_path / "results").rmdir()
    report = run_task(task)
    (failure,) = report.failures
    assert f"{tmp_path}/results: cannot be written" in failure.why and failure.exit_status == 3
    assert report.rows == 0 and failure.rows == 2


def test_an_error_of_ours_has_its_traceback(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("oh\nno")

    monkeypatch.setattr(worker, "feed", broken)
    (failure,) = run_task(task).failures
    assert failure.why == "RuntimeError: oh"
    assert "in broken" in failure.details


def test_a_greeting_tells_what_a_worker_lacks(tmp_path: Path, trace: SweptTrace) -> None:
    token = tmp_path / "token"
    path, checksum = trace.facts.path, trace.facts.sha256
    said = greet(str(token), [(path, checksum), (path, "0"), (str(tmp_path / "no"), "0")])
    assert said.code == CODE and not said.sees_folder
    assert "is another trace" in said.unseen[0] and "no such folder" in said.unseen[1]
    token.touch()
    fits = greet(str(token), [(path, checksum)])
    assert fits.sees_folder and fits.unseen == ()


def test_files_of_other_code_are_set_aside(tmp_path: Path, task: Task) -> None:
    run_task(task)
    (tmp_path / "results" / "torn.parquet").write_bytes(b"PAR1")
    keys, aside = result_files.done_keys(tmp_path, CODE)
    assert (len(keys), aside) == (2, 1)
    assert (tmp_path / "superseded" / "torn.parquet").exists()
    assert result_files.done_keys(tmp_path, "newer") == (set(), 1)
    assert not list((tmp_path / "results").glob("*.parquet"))


def test_what_an_interrupted_sweep_left_is_removed(tmp_path: Path) -> None:
    result_files.prepare(tmp_path)
    result_files.write_state(tmp_path, {})
    left = [tmp_path / "results" / ".x.parquet.12.part", tmp_path / "failures" / "x.log"]
    for path in left:
        path.touch()
    result_files.prepare(tmp_path)
    assert not any(path.exists() for path in left)
