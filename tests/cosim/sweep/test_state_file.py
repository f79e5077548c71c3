"""The folder of a sweep is known by its file."""

from __future__ import annotations

from pathlib import Path

from cosim.sweep.state_file import NAME, is_sweep


def test_the_file_makes_the_folder_of_a_sweep(tmp_path: Path) -> None:
    assert not is_sweep(tmp_path)
    (tmp_path / NAME).write_text("{}")
    assert is_sweep(tmp_path)
    assert not is_sweep(tmp_path / NAME)
