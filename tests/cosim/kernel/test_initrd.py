"""Initial RAM disks: every format whole, truncated and damaged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from pathlib import Path

import pytest
import zstandard

from cosim.errors import GuestImageError
from cosim.kernel.initrd import inspect_initrd
from guest import cpio


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A cpio archive with names and sizes at every alignment."""
    entries = [
        cpio.regular("n" * (index + 1), random.Random(index).randbytes(size))
        for index, size in enumerate((0, 1, 2, 3, 4, 5, 1000, 70_001))
    ]
    return cpio.archive([cpio.directory("bin"), *entries, cpio.symlink("bin/sh", "busybox")])


def _pack(kind: str, data: bytes) -> bytes:
    match kind:
        case "cpio":
            return data
        case "gzip":
            return gzip.compress(data)
        case "xz":
            return lzma.compress(data, check=lzma.CHECK_CRC32)
        case "lzma":
            return lzma.compress(data, format=lzma.FORMAT_ALONE)
        case "bzip2":
            return bz2.compress(data)
        case _:
            return zstandard.compress(data)


KINDS = ["cpio", "gzip", "xz", "lzma", "bzip2", "zstd"]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_and_truncated(kind: str, archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    packed = _pack(kind, archive)
    path.write_bytes(packed)
    assert inspect_initrd(path) == kind
    path.write_bytes(packed + bytes(512))  # padding, as some tools add
    if kind not in ("xz", "lzma"):
        assert inspect_initrd(path) == kind
    for keep in (len(packed) // 2, len(packed) * 99 // 100, 20):
        path.write_bytes(packed[:keep])
        with pytest.raises(GuestImageError, match=r"initrd .* is (truncated|damaged)") as caught:
            inspect_initrd(path)
        assert "\n" not in str(caught.value)


def test_truncated_gzip_says_so(archive: bytes, tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(gzip.compress(archive)[:-1])
    with pytest.raises(GuestImageError, match="is truncated; fetch or build it again"):
        inspect_initrd(path)


def test_damaged_gzip(archive: bytes, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(archive))
    packed[-6] ^= 0xFF  # the checksum
    path = tmp_path / "initrd"
    path.write_bytes(packed)
    with pytest.raises(GuestImageError, match="is damaged"):
        inspect_initrd(path)


def test_gzip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(GuestImageError, match="does not unpack to a cpio archive"):
        inspect_initrd(path)


def test_unknown_format_is_only_linuxs_problem(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(b"some module of another kernel")
    with pytest.raises(GuestImageError, match="is not an initramfs"):
        inspect_initrd(path)
    assert inspect_initrd(path, linux=False) == "raw"


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for name, says in (("none", "cannot read initrd"), ("empty", "is empty"), (".", "a folder")):
        with pytest.raises(GuestImageError, match=says):
            inspect_initrd(tmp_path / name)


def test_zstd_in_several_frames(archive: bytes, tmp_path: Path) -> None:
    """Frames with and without check sums, padding and skippable frames between them."""
    path = tmp_path / "initrd"
    half = len(archive) // 2
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(archive[:half])
    plain = zstandard.ZstdCompressor(write_content_size=False).compress(archive[half:])
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    path.write_bytes(checked + skippable + bytes(5000) + plain + skippable)
    assert inspect_initrd(path) == "zstd"
    path.write_bytes(checked + skippable + plain + skippable[:-1])
    with pytest.raises(GuestImageError, match="is truncated"):
        inspect_initrd(path)
    path.write_bytes(checked + plain + b"more")
    with pytest.raises(GuestImageError, match="is damaged"):
        inspect_initrd(path)
    damaged = bytearray(checked)
    damaged[-1] ^= 1
    path.write_bytes(bytes(damaged) + plain)
    with pytest.raises(GuestImageError, match="is damaged"):
        inspect_initrd(path)


def test_zstd_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(zstandard.compress(b"hello, world"))
    with pytest.raises(GuestImageError, match="does not unpack to a cpio archive"):
        inspect_initrd(path)
