"""Checksums of disk images: equal to those of the whole content, holes or not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cosim.machine import disk_checksums

_PIECE = 64


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_checksums, "_PIECE", _PIECE)


@pytest.mark.parametrize(
    "parts", [[], [1], [_PIECE], [-3], [-3, 5], [5, -3], [200_000, -100_000, 300_000, -70_000, 9]]
)
def test_holes_are_zeros(parts: list[int], tmp_path: Path) -> None:
    """A positive part is data, and a negative one a hole."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        for size in parts:
            if size > 0:
                file.write(os.urandom(size))
            else:
                file.truncate(file.tell() - size)
                file.seek(0, os.SEEK_END)
    done: list[int] = []
    found = disk_checksums.sha256(image, done.append)
    content = image.read_bytes()
    assert found == hashlib.sha256(content).hexdigest()
    assert done == sorted(done)
    assert done[-1:] == ([len(content)] if content else [])


def test_a_file_system_that_tells_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(1000))
    monkeypatch.setattr(os, "SEEK_DATA", 99)
    monkeypatch.setattr(os, "SEEK_HOLE", 99)
    assert disk_checksums.sha256(image) == hashlib.sha256(image.read_bytes()).hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"one")
    done: list[int] = []
    first = disk_checksums.sha256(image, done.append)
    assert disk_checksums.sha256(image, done.append) == first
    assert done == [3]
    image.write_bytes(b"three")
    assert disk_checksums.sha256(image, done.append) == hashlib.sha256(b"three").hexdigest()
    assert done == [3, 5]
