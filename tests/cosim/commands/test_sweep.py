"""``cosim sweep``: what its options refuse, also with ``--dry-run``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import RunFileError, UsageError


@pytest.mark.parametrize("output", ["s3://bucket/sweep", "file.txt"])
def test_the_results_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    words = ["sweep", "s.toml", "--dry-run", "-o", output]
    refused = CliRunner().invoke(cosim, words).exception
    assert isinstance(refused, UsageError) and "folder" in str(refused)


def test_a_trace_that_is_missing_is_told_before_anything_is_captured(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('guest = "micro"\n[sweep]\nmodels = ["native"]\ntraces.t = "nowhere"\n')
    folder = tmp_path / "out"
    done = CliRunner().invoke(cosim, ["sweep", str(file), "-o", str(folder)])
    assert isinstance(done.exception, RunFileError)
    assert f"{file}:4: sweep.traces.t: {tmp_path}/nowhere: no such folder" in str(done.exception)
    assert not folder.exists()
