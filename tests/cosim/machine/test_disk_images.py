"""Disk images that a guest can have, and those that it cannot."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cosim.errors import GuestImageError
from cosim.machine.devices import Disk
from cosim.machine.disk_images import files, inspect


def _qcow2(path: Path, backing: str = "") -> Path:
    name = backing.encode()
    head = b"QFI\xfb" + struct.pack(">IQI", 3, 104 if name else 0, len(name))
    path.write_bytes(head.ljust(104, b"\0") + name + bytes(512))
    return path


def _raw(path: Path, head: bytes = b"") -> Path:
    path.write_bytes(head.ljust(1024, b"\0"))
    return path


def test_the_format_is_found(tmp_path: Path) -> None:
    assert inspect(Disk(_raw(tmp_path / "a"))).format == "raw"
    assert inspect(Disk(_qcow2(tmp_path / "b"))).format == "qcow2"
    assert inspect(Disk(_qcow2(tmp_path / "b"), "raw")).format == "raw"


def test_all_files_of_a_disk_are_found(tmp_path: Path) -> None:
    base = _raw(tmp_path / "base.img")
    middle = _qcow2(tmp_path / "middle.qcow2", "base.img")
    top = _qcow2(tmp_path / "top.qcow2", str(middle))
    assert list(files(inspect(Disk(top)))) == [top, middle, base]
    assert list(files(inspect(Disk(base)))) == [base]


@pytest.mark.parametrize(
    ("head", "asked", "why"),
    [
        (b"", "qcow2", r"is not a qcow2 image; leave format=qcow2 out"),
        (b"KDMV", None, r"is a VMDK file; convert it to raw or qcow2"),
        (b"\x1f\x8b", None, r"is a gzip file"),
    ],
)
def test_a_wrong_format_is_refused(tmp_path: Path, head: bytes, asked: str, why: str) -> None:
    with pytest.raises(GuestImageError, match=why):
        inspect(Disk(_raw(tmp_path / "d", head), asked))  # type: ignore[arg-type]
    assert inspect(Disk(tmp_path / "d", "raw")).format == "raw"


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuestImageError, match=r"needs .*gone.img, which is not a file"):
        inspect(Disk(_qcow2(tmp_path / "top", "gone.img")))
    (tmp_path / "empty").touch()
    with pytest.raises(GuestImageError, match="is empty"):
        inspect(Disk(tmp_path / "empty"))
    with pytest.raises(GuestImageError, match="is not a regular file"):
        inspect(Disk(tmp_path))


def test_a_chain_that_has_no_end_is_refused(tmp_path: Path) -> None:
    loop = _qcow2(tmp_path / "loop", "loop")
    with pytest.raises(GuestImageError, match="lies upon more than"):
        inspect(Disk(loop))


def test_a_disk_that_lies_upon_a_protocol_is_refused(tmp_path: Path) -> None:
    _raw(tmp_path / "fat:a")
    with pytest.raises(GuestImageError, match="lies upon fat:a, which is a protocol to QEMU"):
        inspect(Disk(_qcow2(tmp_path / "top", "fat:a")))


def test_a_disk_whose_data_are_elsewhere_is_refused(tmp_path: Path) -> None:
    path = _qcow2(tmp_path / "d")
    whole = bytearray(path.read_bytes())
    struct.pack_into(">Q", whole, 72, 1 << 2)
    path.write_bytes(whole)
    with pytest.raises(GuestImageError, match="keeps its data in another file"):
        inspect(Disk(path))
    assert inspect(Disk(path, "raw")).format == "raw"


def test_a_backing_file_whose_name_is_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_bytes((b"QFI\xfb" + struct.pack(">IQI", 3, 1 << 63, 3)).ljust(512, b"\0"))
    assert list(files(inspect(Disk(path)))) == [path]
