"""A sweep from its file to its table, with captures and workers that are made up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_replay import synthetic

from cosim.errors import ClusterError, GuestError, StorageError, StorageSilent, UsageError
from cosim.machine import host_memory
from cosim.machine.host_memory import Available
from cosim.models.result import ResultDocument, TranslationCounts
from cosim.run.batch import in_turn
from cosim.run.plan import TOOL_BYTES
from cosim.run.run_spec import RunSpec
from cosim.session.backends import BACKENDS, FOR_CAPTURE
from cosim.session.backends.plugin import Plugin
from cosim.sweep import conduct, result_files, result_query, sweep_file, worker
from cosim.sweep.cluster import Size, Wish
from cosim.sweep.conduct import Conducting, Outcome, sweep
from cosim.sweep.engine import Finished
from cosim.sweep.feeding import Fed, FedTogether, Replay
from cosim.sweep.worker import run_task
from cosim.trace.reader import TraceReader
from hypervisor_model import policies

FILE = """
[[run]]
name = "a"
guest = "micro"
[[run]]
name = "b"
guest = "micro"
workload = "scenario=map"
[sweep]
models = ["native", "lsp"]
[sweep.matrix]
costs.exit = [1, 2]
"""


class FakeCluster:
    """Two workers that are none."""

    where = "the fake cluster"
    dashboard = None

    def size(self) -> Size:
        return Size(2, 4 << 30)

    def check(self, *_: object) -> None:
        pass


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    @contextmanager
    def opened(*_: object) -> Iterator[FakeCluster]:
        yield FakeCluster()

    def work_off(_: object, tasks: Any, *, given_up: Any) -> Iterator[Finished]:
        for task in tasks:
            if task.trace.name not in given_up:
                yield Finished(task, run_task(task))

    def feed(trace: TraceReader, replays: list[Replay]) -> FedTogether:
        fed = FedTogether(trace.events)
        none = TranslationCounts(compared=0, fresh=0, stale_legal=0, illegal=0, undecided=0)
        for index, one in enumerate(replays):
            made = policies.make(one.model, trace.origin.machine, trace.origin.stream)
            fed.results[index] = Fed(made.machine, made.result().to_json(), none, 0.0)
        return fed

    # Models that count nothing need no compiling.
    monkeypatch.setattr(conduct, "compile_models", lambda *_: None)
    monkeypatch.setattr(worker, "feed", feed)
    monkeypatch.setattr(conduct, "opened", opened)
    monkeypatch.setattr(conduct, "work_off", work_off)
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    synthetic(tmp_path / "made", 3_000)
    (tmp_path / "s.toml").write_text(FILE)
    return tmp_path


class Captures:
    """Captures that are made in no time."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.done: list[str] = []
        self.notes: list[str] = []

    def how(self) -> Conducting:
        return Conducting(Wish(), lambda jobs: in_turn(self.execute), self.notes.append)

    def execute(self, spec: RunSpec, folder: Path) -> ResultDocument:
        self.done.append(spec.name)
        if spec.name in self.failing:
            raise GuestError("the guest panicked")
        synthetic(folder / "trace", 3_000 if spec.name == "a" else 4_000)
        document: ResultDocument = {"translations": {}, "audit": None}  # type: ignore[typeddict-item]
        return document


def go(home: Path, captures: Captures) -> Outcome:
    asked = sweep_file.load(home / "s.toml", BACKENDS, FOR_CAPTURE)
    return sweep(asked, home / "out", captures.how(), conduct.silent)


def look(home: Path, wish: Wish | None = None) -> conduct.Outlook:
    asked = sweep_file.load(home / "s.toml", BACKENDS, FOR_CAPTURE)
    return conduct.look(asked, home / "out", wish or Wish())


def state(home: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((home / "out" / "sweep.json").read_text())
    return document


def test_a_second_invocation_has_nothing_to_do(home: Path) -> None:
    first = go(home, Captures())
    assert (first.rows, first.done, first.missing, first.exit_status) == (8, 8, 0, 0)
    again = Captures()
    second = go(home, again)
    assert (second.rows, second.done_already, second.done) == (8, 8, 0)
    assert again.done == []
    assert state(home)["status"] == "done"
    assert state(home)["traces"].keys() == {"a", "b"}
    assert not (home / "out" / "scratch").exists()


def test_a_larger_matrix_adds_what_is_missing(home: Path) -> None:
    go(home, Captures())
    (home / "s.toml").write_text(FILE.replace("[1, 2]", "[1, 2, 3]"))
    more = go(home, Captures())
    assert (more.rows, more.done_already, more.done) == (12, 8, 4)


def test_a_capture_that_fails_leaves_the_other_traces(home: Path) -> None:
    captures = Captures("b")
    outcome = go(home, captures)
    assert (outcome.rows, outcome.done, outcome.exit_status) == (4, 4, 3)
    assert state(home)["status"] == "failed"
    assert any("capture b failed: the guest panicked" in note for note in captures.notes)
    repaired = go(home, Captures())
    assert (repaired.rows, repaired.done_already, repaired.done) == (8, 4, 4)


def test_another_capture_under_the_same_name_is_refused(home: Path) -> None:
    go(home, Captures())
    (home / "s.toml").write_text(FILE.replace("scenario=map", "scenario=fault"))
    captures = Captures()
    with pytest.raises(UsageError, match="holds a sweep over another capture named b"):
        go(home, captures)
    assert captures.done == []


def test_an_interrupted_sweep_says_so_and_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after(error: BaseException) -> Any:
        def work_off(_: object, tasks: Any, **_given: object) -> Iterator[Finished]:
            yield Finished(tasks[0], run_task(tasks[0]))
            raise error

        return work_off

    captures = Captures()
    with monkeypatch.context() as patch:
        patch.setattr(conduct, "work_off", after(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            go(home, captures)
    assert captures.notes[-1] == "cosim: 2 of 8 rows are there; the same command goes on"
    assert state(home)["status"] == "interrupted"
    with monkeypatch.context() as patch:
        patch.setattr(conduct, "work_off", after(ClusterError("the scheduler is gone")))
        with pytest.raises(ClusterError, match=r"gone; 4 of 8 rows are done and kept; the same"):
            go(home, Captures())
    outcome = go(home, Captures())
    assert (outcome.done_already, outcome.missing) == (4, 0)


class CutOff(Captures):
    """Captures of which the one with that name is interrupted when it is almost done."""

    def __init__(self, name: str, see: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.name = name
        self.see = see

    def execute(self, spec: RunSpec, folder: Path) -> ResultDocument:
        document = super().execute(spec, folder)
        if spec.name == self.name:
            self.see()
            raise KeyboardInterrupt
        return document


def test_the_folder_is_that_of_a_sweep_from_the_first_capture_on(home: Path) -> None:
    seen = []
    captures = CutOff("b", lambda: seen.append(state(home)["status"]))
    with pytest.raises(KeyboardInterrupt):
        go(home, captures)
    assert captures.notes[-1] == "cosim: captures that are done are kept; the same command goes on"
    assert seen == ["capturing"]
    assert state(home)["status"] == "interrupted"
    with pytest.raises(UsageError, match="the sweep has no results yet"):
        result_query.run(home / "out", "SELECT 1")
    # No row depends on the capture yet, so another one may have its name.
    other = FILE.replace("scenario=map", "scenario=fault")
    (home / "s.toml").write_text(other)
    assert go(home, Captures()).missing == 0
    # What rows depend on is known also after an interrupted capture.
    (home / "s.toml").write_text(
        other.replace("[sweep]", '[[run]]\nname = "c"\nguest = "micro"\n[sweep]')
    )
    with pytest.raises(KeyboardInterrupt):
        go(home, CutOff("c"))
    (home / "s.toml").write_text(FILE)
    with pytest.raises(UsageError, match="holds a sweep over another capture named b"):
        go(home, Captures())


@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("_capture", "interrupted"),
        ("_inputs", "interrupted"),
        ("_plan", "interrupted"),
        ("_work", "interrupted"),
        # All rows are there.
        ("_write_outcome", "done"),
    ],
)
def test_a_signal_never_leaves_a_sweep_that_seems_to_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: str
) -> None:
    whole = vars(conduct)[name]

    def ended(*given: Any, **more: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return whole(*given, **more)

    monkeypatch.setattr(conduct, name, ended)
    with pytest.raises(KeyboardInterrupt):
        go(home, Captures())
    assert state(home)["status"] == status


def test_a_dry_run_changes_nothing(home: Path) -> None:
    first = look(home)
    assert (first.plan.rows, first.missing) == (0, ["a", "b"])
    assert not (home / "out").exists()
    go(home, Captures())
    later = look(home)
    assert (later.plan.rows, later.plan.done, later.plan.tasks, later.missing) == (8, 8, (), [])


def test_a_dry_run_captures_again_what_was_cut_off(home: Path) -> None:
    """The trace of an interrupted capture can be read, and the sweep throws it away."""
    with pytest.raises(KeyboardInterrupt):
        go(home, CutOff("b"))
    assert (home / "out" / "captures" / "b" / "trace").is_dir()
    outlook = look(home)
    assert (outlook.plan.rows, outlook.missing) == (4, ["b"])
    again = Captures()
    go(home, again)
    assert again.done == ["b"]


def test_a_dry_run_takes_the_workers_of_the_sweep(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(host_memory, "available", lambda: None)
    (home / "s.toml").write_text(
        MANY.replace("per_task = 1\n", "") + '[sweep.traces]\nmade = "made"\n'
    )
    monkeypatch.setattr(conduct, "_rates", lambda: {socket.gethostname(): 1e6})
    before = look(home)
    # There is no estimate before the captures are there.
    assert (before.missing, before.seconds) == (["a", "b"], None)
    go(home, Captures())
    assert look(home).seconds is None
    shutil.rmtree(home / "out" / "results")
    # Of 24 replays, each worker gets four tasks if there are enough.
    assert (look(home).workers, len(look(home).plan.tasks)) == (6, 24)
    two = look(home, Wish(workers=2))
    assert (two.workers, len(two.plan.tasks)) == (2, 9)
    assert two.seconds == pytest.approx(5 + two.plan.work / 1e6 / 2)
    assert look(home, Wish(scheduler="tcp://head:1")).workers is None
    with (home / "s.toml").open("a") as file:
        file.write("[cluster]\nworkers = 3\n")
    assert look(home).workers == 3
    memory = Available(1 << 30, "this machine")
    monkeypatch.setattr(host_memory, "available", lambda: memory)
    # One model fits each of three workers with a sixth of this memory.
    assert len(look(home).plan.tasks) == 24


@pytest.mark.parametrize("what", ["capture", "trace", "gone", "folder"])
def test_a_dry_run_refuses_what_the_sweep_refuses(home: Path, what: str) -> None:
    file = FILE + '[sweep.traces]\nmade = "made"\n'
    (home / "s.toml").write_text(file)
    if what != "folder":
        go(home, Captures())
    if what == "capture":
        (home / "s.toml").write_text(file.replace("scenario=map", "scenario=fault"))
    elif what == "folder":
        (home / "out" / "scratch" / "mine").mkdir(parents=True)
    else:
        shutil.rmtree(home / "made")
    if what == "trace":
        synthetic(home / "made", 40_000)
    with pytest.raises(UsageError) as dry:
        look(home)
    captures = Captures()
    with pytest.raises(UsageError) as real:
        go(home, captures)
    assert str(dry.value) == str(real.value)
    # It is refused before hours of captures.
    assert captures.done == []


def test_the_rate_of_long_sweeps_is_remembered(home: Path) -> None:
    assert conduct.expected_seconds(1000, 2) is None
    go(home, Captures())
    # Far too few events to tell.
    assert conduct.expected_seconds(1000, 2) is None
    conduct._record(Outcome(home, 1, 0, work=100_000_000, seconds=10.0, workers=2))
    assert conduct.expected_seconds(100_000_000, 4) == pytest.approx(5 + 5)


@pytest.mark.parametrize(
    ("processors", "free", "wish", "captures"),
    [
        (1, None, Wish(), 1),
        (9, None, Wish(), 4),
        (9, None, Wish(workers=2), 2),
        (9, None, Wish(table={"workers": 3}), 3),
        # These are not of this machine.
        (9, None, Wish(table={"kind": "slurm", "workers": 3}), 4),
        (9, None, Wish(scheduler="tcp://head:1"), 4),
        # A guest with 2 GiB, and half a GiB for the tool.
        (9, 8 << 30, Wish(), 3),
        (9, 1 << 30, Wish(), 1),
    ],
)
def test_so_many_captures_at_a_time_as_the_machine_carries(
    monkeypatch: pytest.MonkeyPatch, processors: int, free: int | None, wish: Wish, captures: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    found = None if free is None else Available(free, "this machine")
    monkeypatch.setattr(host_memory, "available", lambda: found)
    specs = [
        RunSpec(name=memory, backend=Plugin(), guest="micro", memory=memory)
        for memory in ("64M", "2G", "1K")
    ]
    monkeypatch.setattr(conduct, "resolve", resolved)
    assert conduct.captures_at_once(specs, wish) == captures


def resolved(spec: RunSpec) -> Any:
    """Stands for the plan of a run; one cannot be had."""
    sizes = {"64M": 64 << 20, "2G": 2 << 30}
    if spec.memory not in sizes:
        raise UsageError("no guest has so little")
    return SimpleNamespace(memory_needed=sizes[spec.memory] + TOOL_BYTES)


@pytest.mark.parametrize("name", ["scratch", "failures", "results"])
def test_a_folder_of_the_users_is_left_alone(home: Path, name: str) -> None:
    """`-o ~` must not remove ~/scratch."""
    kept = home / "mine" / name / "thesis.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("all of it")
    asked = sweep_file.load(home / "s.toml", BACKENDS, FOR_CAPTURE)
    with pytest.raises(UsageError, match=f"is not the folder of a sweep, but has .* named {name};"):
        sweep(asked, home / "mine", Captures().how(), conduct.silent)
    assert kept.read_text() == "all of it"


MANY = FILE.replace(
    "[sweep.matrix]", "per_task = 1\n[sweep.matrix]\nmachine.footprint_data = [0, 1, 2, 3]"
)


def feeding(monkeypatch: pytest.MonkeyPatch, check: Any) -> None:
    """Let ``check`` look at each trace before it is fed."""
    whole: Callable[..., FedTogether] = vars(worker)["feed"]

    def feed(trace: TraceReader, replays: Any) -> FedTogether:
        check(trace)
        return whole(trace, replays)

    monkeypatch.setattr(worker, "feed", feed)


def test_a_trace_that_is_lost_is_given_up_and_its_reason_said_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(trace: TraceReader) -> None:
        if "/captures/b/" in str(trace.location):
            raise StorageError("b: no right to do that")

    (home / "s.toml").write_text(MANY)
    captures = Captures()
    with monkeypatch.context() as patch:
        feeding(patch, check)
        outcome = go(home, captures)
    # Each task makes the rows of two cost tables.
    assert (outcome.rows, outcome.done, outcome.missing, outcome.exit_status) == (32, 16, 16, 3)
    assert (len(outcome.failures), outcome.given_up) == (3, ["b"])
    said = [note for note in captures.notes if note.startswith("cosim: b")]
    assert len(said) == 2 and "no right to do that (log: " in said[0]
    assert "3 tasks in a row failed because of the trace or a disk; its other tasks" in said[1]
    again = go(home, Captures())
    assert (again.done_already, again.done, again.missing) == (16, 16, 0)


def test_what_cannot_be_written_does_not_hide_how_it_went(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the first task on: no room for a log, nor for the outcome."""
    write_state = result_files.write_state

    def full(folder: Path, state: dict[str, Any]) -> None:
        if state["status"] not in (result_files.CAPTURING, result_files.RUNNING):
            raise StorageError(f"cannot write {folder}/sweep.json: No space left on device")
        write_state(folder, state)

    def check(_: object) -> None:
        shutil.rmtree(home / "out" / "failures", ignore_errors=True)
        raise StorageError("no room")

    monkeypatch.setattr(result_files, "write_state", full)
    feeding(monkeypatch, check)
    captures = Captures()
    outcome = go(home, captures)
    assert (outcome.exit_status, outcome.missing) == (3, outcome.rows)
    assert outcome.failures[-1].what == "the sweep"
    # That is no task.
    assert outcome.tasks_failed == outcome.tasks == len(outcome.failures) - 1
    said = [note for note in captures.notes if note.startswith("cosim: ")]
    assert "no room (its log cannot be written: No such file or directory)" in said[0]
    assert said[-1].endswith("sweep.json: No space left on device")


def test_a_folder_for_workers_that_cannot_be_made_is_said(home: Path) -> None:
    (home / "out").mkdir()
    (home / "out" / "scratch").touch()
    with (
        pytest.raises(StorageError, match="out/scratch: cannot be made"),
        result_files.scratch(home / "out"),
    ):
        pass


def test_one_configuration_that_fails_does_not_cost_the_others(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: object) -> None:
        raise ZeroDivisionError("a bug")

    (home / "s.toml").write_text(MANY)
    captures = Captures()
    feeding(monkeypatch, check)
    outcome = go(home, captures)
    assert (len(outcome.failures), outcome.given_up) == (16, [])
    assert len([note for note in captures.notes if "ZeroDivisionError: a bug" in note]) == 1


@pytest.mark.parametrize(("outages", "status"), [(3, 0), (9, 3)])
def test_a_task_waits_for_storage_that_does_not_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch, outages: int, status: int
) -> None:
    left = outages
    now = 1000.0

    def check(_: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise StorageSilent("nobody answers there")

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(worker, "_sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    feeding(monkeypatch, check)
    outcome = go(home, Captures())
    assert outcome.exit_status == status
    assert now - 1000 == {3: 1 + 2 + 5, 9: 1 + 2 + 5 + 10 * 5}[outages]
