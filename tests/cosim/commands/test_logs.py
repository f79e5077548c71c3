"""Folders of logs: private, pruned, and never taken from a session that uses them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosim.commands.logs import folder_for, prune
from cosim.errors import StorageError


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["open", "usual", "closed"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_a_new_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    with folder_for(tmp_path / "logs") as folder:
        assert folder == tmp_path / "logs" and mode(folder) == 0o700


def test_a_folder_in_the_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path))
    before = os.umask(0)
    try:
        with folder_for(None) as folder:
            assert folder.parent == tmp_path / "sessions" and mode(folder) == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o755)
    with folder_for(tmp_path / "logs") as folder:
        assert mode(folder) == 0o755


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(StorageError, match="Not a directory"), folder_for(tmp_path / "logs"):
        pass


def _sessions(parent: Path, count: int, size: int = 0) -> None:
    for number in range(count):
        folder = parent / f"20260101-00000{number}-x"
        folder.mkdir(parents=True)
        (folder / "console.log").write_bytes(bytes(1) * size)


def test_the_newest_stay(tmp_path: Path) -> None:
    _sessions(tmp_path, 5)
    prune(tmp_path, kept=2)
    assert sorted(path.name[14] for path in tmp_path.iterdir()) == ["3", "4"]


def test_what_takes_too_much_goes_but_the_newest(tmp_path: Path) -> None:
    _sessions(tmp_path, 4, size=1 << 20)
    prune(tmp_path, kept_bytes=5 << 19)
    assert sorted(path.name[14] for path in tmp_path.iterdir()) == ["2", "3"]
    prune(tmp_path, kept_bytes=1)
    assert [path.name[14] for path in tmp_path.iterdir()] == ["3"]


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    _sessions(tmp_path, 3)
    with folder_for(tmp_path / "20260101-000000-x"):
        prune(tmp_path, kept=1)
        assert len(list(tmp_path.iterdir())) == 2
    prune(tmp_path, kept=1)
    assert [path.name[14] for path in tmp_path.iterdir()] == ["2"]


def test_links_and_files_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    sessions = tmp_path / "sessions"
    _sessions(sessions, 2)
    (sessions / "00000000").symlink_to(tmp_path / "precious")
    (sessions / "note").touch()
    prune(sessions, kept=0)
    assert sorted(path.name for path in sessions.iterdir()) == ["00000000", "note"]
    assert (tmp_path / "precious").is_dir()
