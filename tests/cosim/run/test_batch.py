"""Many runs: failures stay alone, a second invocation does what is missing."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cosim.commands import many_runs
from cosim.commands.many_runs import do_runs
from cosim.errors import GuestError, RunFileError, UsageError
from cosim.models.result import ResultDocument
from cosim.run import batch
from cosim.run.batch import Ended, Execute, Failed, RunOutcome, Task, in_turn
from cosim.run.run_spec import Exchange, RunSpec
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from tests.cosim.streams import result_document

A, B, C = (
    RunSpec(name=name, backend=Gdb(), guest="linux", console=(Exchange("x"),), kernel=Path("k"))
    for name in "abc"
)


def do(specs: list[RunSpec], output: Path, execute: Execute) -> list[RunOutcome]:
    """Do the runs in this process, and tell nobody."""
    return batch.run(specs, output, in_turn(execute), lambda outcome: None)


class Executor:
    """Stands for the session: fails for the names it is told."""

    def __init__(self, *failing: str, illegal: int = 0) -> None:
        self.calls: list[str] = []
        self.failing = failing
        self.illegal = illegal

    def __call__(self, spec: RunSpec, folder: Path) -> ResultDocument:
        self.calls.append(spec.name)
        assert [path.name for path in folder.iterdir()] == ["run.json"]
        (folder / "trace").mkdir()
        if spec.name in self.failing:
            raise GuestError("the guest panicked", log="x.log")
        return result_document(illegal=self.illegal)


def test_a_failed_run_leaves_the_others_alone_and_is_done_again(tmp_path: Path) -> None:
    first = Executor("b")
    outcomes = do([A, B, C], tmp_path, first)
    assert first.calls == ["a", "b", "c"]
    assert [(o.name, o.status, o.exit_status) for o in outcomes] == [
        ("a", "done", 0),
        ("b", "failed", 3),
        ("c", "done", 0),
    ]
    assert outcomes[1].error == "the guest panicked (log: x.log)"
    assert (tmp_path / "b" / "trace").is_dir()  # What it left is kept until it is tried again.
    second = Executor()
    outcomes = do([A, B, C], tmp_path, second)
    assert second.calls == ["b"]
    assert [o.earlier for o in outcomes] == [True, False, True]
    for outcome in outcomes:
        assert outcome.result is not None
        assert json.loads(outcome.result.read_text()) == result_document()


def test_a_changed_run_is_done_again(tmp_path: Path) -> None:
    do([A], tmp_path, Executor())
    changed = replace(A, backend=Plugin())
    again = Executor()
    do([changed], tmp_path, again)
    do([changed], tmp_path, again)
    assert again.calls == ["a"]


def test_a_run_that_an_older_version_did_is_not_done_again(tmp_path: Path) -> None:
    """It wrote options that were not set, and called the backend mi."""
    do([A], tmp_path, Executor())
    file = tmp_path / "a" / "run.json"
    state = json.loads(file.read_text())
    state["spec"] |= {"backend": "mi", "step": None, "accesses": None, "filter": None}
    file.write_text(json.dumps(state))
    again = Executor()
    assert [outcome.earlier for outcome in do([A], tmp_path, again)] == [True]
    assert again.calls == []
    stepped = replace(A, backend=Gdb(step=1))
    assert [outcome.earlier for outcome in do([stepped], tmp_path, again)] == [False]


def test_a_killed_run_is_done_again(tmp_path: Path) -> None:
    def killed(spec: RunSpec, folder: Path) -> ResultDocument:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do([A], tmp_path, killed)
    again = Executor()
    assert [o.status for o in do([A], tmp_path, again)] == ["done"]
    assert again.calls == ["a"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "done"}'])
def test_a_damaged_state_means_not_done(tmp_path: Path, content: str) -> None:
    do([A], tmp_path, Executor())
    (tmp_path / "a" / "run.json").write_text(content)
    again = Executor()
    do([A], tmp_path, again)
    assert again.calls == ["a"]


def test_a_lost_result_means_not_done(tmp_path: Path) -> None:
    do([A], tmp_path, Executor())
    (tmp_path / "a" / batch.RESULT).unlink()
    again = Executor()
    do([A], tmp_path, again)
    assert again.calls == ["a"]


def test_a_finding_is_remembered(tmp_path: Path) -> None:
    do([A], tmp_path, Executor(illegal=1))
    (outcome,) = do([A], tmp_path, Executor())
    assert (outcome.status, outcome.exit_status, outcome.earlier) == ("done", 1, True)


def test_foreign_files_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("x")
    executor = Executor()
    with pytest.raises(UsageError, match="b: holds other files"):
        do([A, B], tmp_path, executor)
    assert executor.calls == []
    assert (tmp_path / "b" / "thesis.txt").read_text() == "x"


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    def execute(spec: RunSpec, folder: Path) -> ResultDocument:
        with pytest.raises(UsageError, match="another cosim process is doing runs there"):
            do([A], tmp_path, Executor())
        return result_document()

    assert [o.status for o in do([A, B], tmp_path, execute)] == ["done", "done"]


def test_outcomes_are_told_as_they_come_and_returned_in_order(tmp_path: Path) -> None:
    do([C], tmp_path, Executor())
    states: list[str] = []

    def work_off(tasks: Iterator[Task], count: int) -> Generator[Ended, None, None]:
        """Do two runs at a time, of which the second ends first."""
        assert count == 2
        (first, _), (second, folder) = tasks
        yield second, result_document()
        states.append(json.loads((folder / "run.json").read_text())["status"])
        yield first, Failed("the guest panicked", 3)

    told: list[str] = []
    outcomes = batch.run([A, B, C], tmp_path, work_off, lambda outcome: told.append(outcome.name))
    assert told == ["c", "b", "a"]
    assert [(o.name, o.status) for o in outcomes] == [("a", "failed"), ("b", "done"), ("c", "done")]
    # It was kept before the others ended.
    assert states == ["done"]


def test_an_interruption_while_an_outcome_is_told_ends_the_runs_that_go_on(tmp_path: Path) -> None:
    closed: list[bool] = []

    def work_off(tasks: Iterator[Task], count: int) -> Generator[Ended, None, None]:
        (first, _), _ = tasks
        try:
            yield first, result_document()
        finally:
            closed.append(True)

    def interrupted(outcome: RunOutcome) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run([A, B], tmp_path, work_off, interrupted)
    assert closed == [True]
    assert [o.earlier for o in do([A, B], tmp_path, Executor())] == [True, False]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; free some memory"),
        (OSError(28, "No space left on device"), "No space left on device; free space, or check"),
    ],
)
def test_what_the_system_refuses_one_run_leaves_the_others_alone(
    tmp_path: Path, error: OSError | MemoryError, said: str
) -> None:
    def execute(spec: RunSpec, folder: Path) -> ResultDocument:
        if spec.name == "a":
            raise error
        return result_document()

    failed, done = do([A, B], tmp_path, execute)
    assert failed.error is not None and said in failed.error
    assert (failed.exit_status, done.status) == (3, "done")


def test_the_runs_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.toml"
    path.write_text('guest = "linux"\n[[run]]\nname = "a"\n[[run]]\nname = "b"\n')
    output = tmp_path / "out"
    for executor, status, calls in (
        (Executor("b"), 3, ["a", "b"]),
        (Executor(illegal=1), 1, ["b"]),
        (Executor(), 1, []),
    ):
        got = do_runs(path, output, as_json=True, trace=False, work_off=in_turn(executor))
        document = json.loads(capsys.readouterr().out)
        assert (got, executor.calls) == (status, calls)
        assert [run["name"] for run in document["runs"]] == ["a", "b"]
    assert document["runs"][1]["exit_status"] == 1
    assert Path(document["runs"][1]["result"]).is_file()
    assert do_runs(path, output, as_json=False, trace=False, work_off=in_turn(Executor())) == 1
    captured = capsys.readouterr()
    assert "done, with a finding earlier" in " ".join(captured.out.split())
    assert "[2/2] b: done" in captured.err
    assert f"results: {output}/RUN/result.json\n" in captured.out


@pytest.mark.parametrize(("jobs", "compiled"), [(1, []), (2, [["shadow", "native", "lsp"]])])
def test_models_are_compiled_once_for_runs_beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, compiled: list[list[str]]
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(many_runs, "compile_missing", seen.append)
    path = tmp_path / "f.toml"
    path.write_text(
        'guest = "linux"\n[[run]]\nname = "a"\nmodels = ["shadow", "native"]\n'
        '[[run]]\nname = "b"\nmodels = ["native", "lsp"]\n'
    )
    do_runs(
        path,
        tmp_path / "out",
        as_json=True,
        trace=False,
        jobs=jobs,
        work_off=in_turn(Executor()),
    )
    assert seen == compiled


def test_capturing_the_runs_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.toml"
    path.write_text('guest = "linux"\n')
    seen: list[RunSpec] = []

    def execute(spec: RunSpec, folder: Path) -> ResultDocument:
        seen.append(spec)
        return result_document()

    assert do_runs(path, tmp_path / "out", as_json=True, trace=True, work_off=in_turn(execute)) == 0
    assert [spec.trace for spec in seen] == [True]


def test_runs_that_are_repeated_are_not_captured(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('guest = "linux"\nsmp = 2\nruns = 3\n')
    executor = Executor()
    with pytest.raises(RunFileError, match=r":3: runs: cannot be used with `cosim capture`"):
        do_runs(path, tmp_path / "out", as_json=True, trace=True, work_off=in_turn(executor))
    assert executor.calls == []


def test_a_guest_that_is_not_made_yet_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "f.toml"
    path.write_text('guest = "micro"\nfrom = "mark:a"\n')
    assert do_runs(path, tmp_path / "out", as_json=True, trace=False, offline=True) == 2
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["error"] == (
        "guest micro is not there yet, and with --offline it is not made; "
        "type `cosim guest build micro`"
    )


def test_nothing_starts_when_the_file_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('[[run]]\nname = "a"\nguest = "linux"\n[[run]]\nname = "b"\n')
    executor = Executor()
    with pytest.raises(RunFileError, match=r":4: run\[1\]\.guest: is missing"):
        do_runs(path, tmp_path / "out", as_json=True, trace=False, work_off=in_turn(executor))
    assert executor.calls == []
    assert not (tmp_path / "out").exists()
