"""``cosim sweep``: what its options refuse, and what ``--dry-run`` says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_replay import synthetic
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import RunFileError, UsageError
from cosim.sweep import conduct


@pytest.mark.parametrize("output", ["s3://bucket/sweep", "file.txt"])
def test_the_results_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    words = ["sweep", "s.toml", "--dry-run", "-o", output]
    refused = CliRunner().invoke(cosim, words).exception
    assert isinstance(refused, UsageError) and "folder" in str(refused)


FILE = """
[[run]]
name = "a"
guest = "micro"
[sweep]
models = ["native", "lsp"]
"""


def dry(folder: Path, text: str, *words: str) -> str:
    (folder / "s.toml").write_text(text)
    given = ["sweep", str(folder / "s.toml"), "--dry-run", "-o", str(folder / "out"), *words]
    done = CliRunner().invoke(cosim, given, standalone_mode=False, catch_exceptions=False)
    assert done.return_value == 0
    return done.output


def test_a_dry_run_says_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "expected_seconds", lambda work, workers: work / 100 / workers)
    # Nothing is said of how long it takes.
    assert dry(tmp_path, FILE).splitlines() == [
        "1 trace, 2 configurations, 2 rows",
        "to capture first: a",
        "how long it takes can be said when the captures are there",
    ]
    said = json.loads(dry(tmp_path, FILE, "--json"))
    assert (said["traces_asked_for"], said["rows_asked_for"]) == (1, 2)
    assert (said["traces"], said["rows"], said["expected_seconds"]) == (0, 0, None)
    synthetic(tmp_path / "made", 100)
    there = '[sweep]\nmodels = ["native"]\n[sweep.traces]\nb = "made"\n'
    first, second, third = dry(tmp_path, there, "--workers", "1").splitlines()
    assert first == "1 trace, 1 configuration, 1 row"
    assert second == "over the traces that are there: 0 rows done, 1 task to do"
    assert third.startswith("this takes about ") and third.endswith(" on 1 worker")
    last = dry(tmp_path, there, "--scheduler", "tcp://head:1").splitlines()[-1]
    assert last.endswith(" on 1 worker (--dry-run does not ask the scheduler how many it has)")
    assert json.loads(dry(tmp_path, there, "--workers", "3", "--json"))["workers"] == 3


def test_a_trace_that_is_missing_is_told_before_anything_is_captured(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('guest = "micro"\n[sweep]\nmodels = ["native"]\ntraces.t = "nowhere"\n')
    folder = tmp_path / "out"
    done = CliRunner().invoke(cosim, ["sweep", str(file), "-o", str(folder)])
    assert isinstance(done.exception, RunFileError)
    assert f"{file}:4: sweep.traces.t: {tmp_path}/nowhere: no such folder" in str(done.exception)
    assert not folder.exists()
