"""Initramfs archives with added files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosim.errors import GuestImageError
from cosim.run.initrd_additions import Added, extended
from guest import cpio


@pytest.fixture
def initrd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSIM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "initrd.gz"
    path.write_bytes(cpio.compressed([cpio.regular("init", b"#!", 0o755)]))
    return path


def _second(path: Path, first: Path) -> bytes:
    """Return the archive behind the first one."""
    size = first.stat().st_size
    whole = path.read_bytes()
    assert whole.startswith(first.read_bytes())
    return whole[size + -size % 4 :]


def test_a_file_and_its_folders_follow_the_first_archive(initrd: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"code")
    tool.chmod(0o755)
    made = extended(initrd, (Added(tool, "usr/bin/tool"),))
    assert _second(made, initrd) == cpio.archive(
        [
            cpio.directory("usr"),
            cpio.directory("usr/bin"),
            cpio.regular("usr/bin/tool", b"code", 0o755),
        ]
    )


def test_a_folder_is_added_whole_and_a_link_in_it_stays_one(initrd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"1")
    (folder / "b").symlink_to("sub/a")
    for path in (folder, folder / "sub", folder / "sub" / "a"):
        path.chmod(0o755)
    made = extended(initrd, (Added(folder, "etc"),))
    assert _second(made, initrd) == cpio.archive(
        [
            cpio.directory("etc"),
            cpio.symlink("etc/b", "sub/a"),
            cpio.directory("etc/sub"),
            cpio.regular("etc/sub/a", b"1", 0o755),
        ]
    )


def test_equal_contents_have_one_file_and_others_another(initrd: Path, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(b"1")
    first = extended(initrd, (Added(tool, "t"),))
    assert extended(initrd, (Added(tool, "t"),)) == first
    tool.write_bytes(b"2")
    assert extended(initrd, (Added(tool, "t"),)) != first


def test_what_is_no_file_is_refused(initrd: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(GuestImageError, match=r"fifo is neither a file nor a folder"):
        extended(initrd, (Added(tmp_path / "fifo", "f"),))


def test_a_name_that_is_no_utf8_is_kept(initrd: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir(mode=0o755)
    name = os.fsdecode(b"\xff")
    (folder / name).symlink_to(name)
    made = _second(extended(initrd, (Added(folder, "odd"),)), initrd)
    assert b"odd/\xff\0" in made


def test_a_folder_that_cannot_be_read_is_refused(
    initrd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f" / "locked").mkdir(parents=True)
    scan = os.scandir

    def refuse(path: str | Path) -> object:
        # Nothing is locked for root.
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(GuestImageError, match=r"cannot read .*locked: Permission denied"):
        extended(initrd, (Added(tmp_path / "f", "f"),))
