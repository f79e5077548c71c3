"""Many runs: failures stay alone, a second invocation does what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosim import batch
from cosim.errors import GuestError, UsageError
from cosim.result import ResultDocument
from cosim.runspec import Exchange, RunSpec
from tests.cosim.streams import result_document

A, B, C = (
    RunSpec(name=name, guest="linux", console=(Exchange("x"),), kernel=Path("k")) for name in "abc"
)


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
    outcomes = list(batch.run([A, B, C], tmp_path, first))
    assert first.calls == ["a", "b", "c"]
    assert [(o.name, o.status, o.exit_status) for o in outcomes] == [
        ("a", "done", 0),
        ("b", "failed", 3),
        ("c", "done", 0),
    ]
    assert outcomes[1].error == "the guest panicked (log: x.log)"
    assert (tmp_path / "b" / "trace").is_dir()  # What it left is kept until it is tried again.
    second = Executor()
    outcomes = list(batch.run([A, B, C], tmp_path, second))
    assert second.calls == ["b"]
    assert [o.earlier for o in outcomes] == [True, False, True]
    for outcome in outcomes:
        assert outcome.result is not None
        assert json.loads(outcome.result.read_text()) == result_document()


def test_a_changed_run_is_done_again(tmp_path: Path) -> None:
    list(batch.run([A], tmp_path, Executor()))
    changed = RunSpec(**{**vars(A), "backend": "mi"})
    again = Executor()
    list(batch.run([changed], tmp_path, again))
    list(batch.run([changed], tmp_path, again))
    assert again.calls == ["a"]


def test_a_killed_run_is_done_again(tmp_path: Path) -> None:
    def killed(spec: RunSpec, folder: Path) -> ResultDocument:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(batch.run([A], tmp_path, killed))
    again = Executor()
    assert [o.status for o in batch.run([A], tmp_path, again)] == ["done"]
    assert again.calls == ["a"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": "done"}'])
def test_a_damaged_state_means_not_done(tmp_path: Path, content: str) -> None:
    list(batch.run([A], tmp_path, Executor()))
    (tmp_path / "a" / "run.json").write_text(content)
    again = Executor()
    list(batch.run([A], tmp_path, again))
    assert again.calls == ["a"]


def test_a_lost_result_means_not_done(tmp_path: Path) -> None:
    list(batch.run([A], tmp_path, Executor()))
    (tmp_path / "a" / batch.RESULT).unlink()
    again = Executor()
    list(batch.run([A], tmp_path, again))
    assert again.calls == ["a"]


def test_a_finding_is_remembered(tmp_path: Path) -> None:
    list(batch.run([A], tmp_path, Executor(illegal=1)))
    (outcome,) = batch.run([A], tmp_path, Executor())
    assert (outcome.status, outcome.exit_status, outcome.earlier) == ("done", 1, True)


def test_foreign_files_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="holds files of something else"):
        list(batch.run([A], tmp_path, Executor()))
    assert (tmp_path / "a" / "thesis.txt").read_text() == "x"


def test_two_batches_do_not_share_a_folder(tmp_path: Path) -> None:
    running = batch.run([A, B], tmp_path, Executor())
    next(running)
    with pytest.raises(UsageError, match="another cosim is doing runs there"):
        next(batch.run([A], tmp_path, Executor()))
    assert [o.name for o in running] == ["b"]
