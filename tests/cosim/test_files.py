"""Files are written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cosim.errors import StorageError
from cosim.files import read_regular, write_atomically

_LIMITED = """
import resource, signal, sys
from pathlib import Path
from cosim.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_atomically(Path(sys.argv[1]), b"n" * 100_000)
"""
_KILLED = """
import os, signal, sys
from pathlib import Path
from cosim.files import write_atomically
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), b"new")
"""


def test_bytes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"\0\1")
    assert path.read_bytes() == b"\0\1"
    write_atomically(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_others_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    answer = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 1
    assert f"StorageError: cannot write {path}: File too large" in answer.stderr
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    answer = subprocess.run([sys.executable, "-c", _KILLED, str(path)], timeout=60)
    assert answer.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^cannot write .*/none/file: No such file"):
        write_atomically(tmp_path / "none/file", b"")
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(StorageError, match="Not a directory"):
        write_atomically(tmp_path / "taken/file", b"")


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "file", 4)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("fifo", "endless"):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(tmp_path / name, 5)
    for name in (".", "none", "a\0b"):
        with pytest.raises(OSError):
            read_regular(tmp_path / name, 5)
