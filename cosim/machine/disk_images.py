"""Disk images: which format a file has, which files belong to it, and if QEMU can use it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cosim.errors import GuestImageError
from cosim.machine.devices import Disk

_QCOW2 = b"QFI\xfb"
_OTHERS = {
    b"KDMV": "VMDK",
    b"conectix": "VHD",
    b"vhdxfile": "VHDX",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"QED\0": "QED",
}
_SECTOR = 512
_LONGEST_CHAIN = 16
_LONGEST_NAME = 1023
"""Bytes of the name of a backing file, by the specification of qcow2."""
_LARGEST = 1 << 63
"""The first offset that no file has."""
_DATA_FILE = 1 << 2
"""The incompatible feature of a qcow2 image whose data are in another file."""


def inspect(disk: Disk) -> Disk:
    """Return ``disk`` with its format.

    A file whose first bytes are those of qcow2 is qcow2 and every other one is raw, unless the user
    says otherwise.

    :raises GuestImageError: when a guest cannot have it: it is missing, unreadable, empty, not of
        the format that the user gave, or of one that we do not know.
    """
    path = disk.path
    try:
        if not path.is_file():
            raise GuestImageError(f"disk {path} is not a regular file; copy it to one")
        with path.open("r+b" if disk.writable else "rb") as file:
            head = file.read(_SECTOR)
            size = file.seek(0, 2)
    except OSError as error:
        raise GuestImageError(
            f"cannot {'write' if disk.writable else 'read'} disk {path}: {error.strerror}; "
            "check the path and its permissions"
        ) from None
    if size == 0:
        raise GuestImageError(f"disk {path} is empty; make or fetch it again")
    is_qcow2 = head.startswith(_QCOW2)
    if disk.format == "qcow2" and not is_qcow2:
        raise GuestImageError(
            f"disk {path} is not a qcow2 image; leave format=qcow2 out if it is a raw one"
        )
    if disk.format is None and not is_qcow2:
        for magic, name in _OTHERS.items():
            if head.startswith(magic):
                raise GuestImageError(
                    f"disk {path} is a {name} file; convert it to raw or qcow2 (qemu-img convert), "
                    "or give format=raw if the guest is to see it as it is"
                )
    if is_qcow2 and disk.format != "raw" and _features(head) & _DATA_FILE:
        raise GuestImageError(
            f"disk {path} keeps its data in another file; convert it to an image that does not "
            "(qemu-img convert)"
        )
    found = replace(disk, format=disk.format or ("qcow2" if is_qcow2 else "raw"))
    for file_path in files(found):
        if not file_path.is_file():
            raise GuestImageError(f"disk {path} needs {file_path}, which is not a file")
    return found


def files(disk: Disk) -> Iterator[Path]:
    """Yield the files of a disk: the image, and those that a qcow2 image lies upon.

    :raises GuestImageError: when there are too many of them, or one is no file to QEMU.
    """
    path: Path | None = disk.path
    for _ in range(_LONGEST_CHAIN):
        if path is None:
            return
        yield path
        path = _backing(path) if disk.format == "qcow2" or path != disk.path else None
    raise GuestImageError(f"disk {disk.path} lies upon more than {_LONGEST_CHAIN} other images")


def _features(head: bytes) -> int:
    """Return the incompatible features of a qcow2 image."""
    if len(head) < 80 or int.from_bytes(head[4:8], "big") < 3:
        return 0
    return int.from_bytes(head[72:80], "big")


def _backing(path: Path) -> Path | None:
    """Return the file that a qcow2 image lies upon; None if there is none."""
    try:
        with path.open("rb") as file:
            return _backing_of(path, file)
    except OSError:
        return None


def _backing_of(path: Path, file: BinaryIO) -> Path | None:
    head = file.read(20)
    if len(head) < 20 or not head.startswith(_QCOW2):
        return None
    offset, size = struct.unpack_from(">QI", head, 8)
    if offset == 0 or offset >= _LARGEST or size > _LONGEST_NAME:
        return None
    file.seek(offset)
    name = file.read(size).decode(errors="surrogateescape")
    if re.match(r"[^/]*:", name):
        raise GuestImageError(
            f"disk {path} lies upon {name}, which is a protocol to QEMU and not a file"
        )
    return path.parent / name
