"""``cosim sweep``: what its options refuse, also with ``--dry-run``."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.errors import UsageError


@pytest.mark.parametrize("output", ["s3://bucket/sweep", "file.txt"])
def test_the_results_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    words = ["sweep", "s.toml", "--dry-run", "-o", output]
    refused = CliRunner().invoke(cosim, words).exception
    assert isinstance(refused, UsageError) and "folder" in str(refused)
