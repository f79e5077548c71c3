"""The cpio writer against GNU cpio."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from guest import cpio

_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_.0123456789é", min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)


def _gnu_cpio(folder: Path, archive: bytes, *options: str) -> str:
    answer = subprocess.run(
        ["cpio", "--quiet", *options], cwd=folder, input=archive, capture_output=True, timeout=30
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.decode()


@settings(max_examples=25)
@given(st.dictionaries(_NAMES, st.binary(max_size=300), max_size=6))
def test_gnu_cpio_unpacks_what_was_written(files: dict[str, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        entries = [cpio.regular(name, data, 0o640) for name, data in files.items()]
        _gnu_cpio(folder, cpio.archive(entries), "-i", "--no-preserve-owner")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
        assert all(path.stat().st_mode & 0o7777 == 0o640 for path in folder.iterdir())


def test_kinds_and_modes_as_gnu_cpio_lists_them(tmp_path: Path) -> None:
    archive = cpio.archive(
        [
            cpio.directory("dev"),
            cpio.directory("tmp", 0o1777),
            cpio.character_device("dev/console", 5, 1),
            cpio.regular("init", b"#!", 0o755),
            cpio.symlink("sh", "busybox"),
        ]
    )
    rows = [line.split() for line in _gnu_cpio(tmp_path, archive, "-itv").splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("drwxr-xr-x", "root", "root"),
        ("drwxrwxrwt", "root", "root"),
        ("crw-------", "root", "root"),
        ("-rwxr-xr-x", "root", "root"),
        ("lrwxrwxrwx", "root", "root"),
    ]
    assert rows[2][4:6] == ["5,", "1"]
    assert rows[4][-3:] == ["sh", "->", "busybox"]


def test_two_archives_of_the_same_entries_are_the_same_bytes() -> None:
    entries = [cpio.directory("a"), cpio.regular("a/b", os.urandom(1000))]
    first, second = cpio.compressed(entries), cpio.compressed(entries)
    assert first == second
    assert gzip.decompress(first) == cpio.archive(entries)


def test_a_device_keeps_its_type() -> None:
    assert stat.S_ISCHR(cpio.character_device("null", 1, 3).mode)
