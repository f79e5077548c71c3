"""Initial RAM disks: the checks that find a damaged file before a guest trips over it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from cosim.errors import GuestImageError
from cosim.kernel import unpacking
from cosim.kernel.images import open_regular
from cosim.kernel.unpacking import EndsEarly, Readable

_CHUNK = 1 << 20
_CPIO = (b"070701", b"070702")


class _Damaged(Exception):
    pass


def inspect_initrd(path: Path | str, *, linux: bool = True) -> str:
    """Check the initrd ``path`` from end to end; return its format (``cpio``, ``gzip``, ...).

    Compressed files are unpacked piece by piece, and nothing is kept.

    :param linux: False for a kernel that is not Linux: then a format that we do not know passes
        as ``raw``, because only that kernel knows what it wants.
    :raises GuestImageError: when it is missing, truncated, damaged or not an initramfs.
    """
    path = Path(path)
    with open_regular(path, "initrd") as file:
        head = file.read(8)
        file.seek(0)
        try:
            kind = _check(file, head)
        except (EndsEarly, EOFError):
            raise GuestImageError(f"initrd {path} is truncated; fetch or build it again") from None
        except (_Damaged, *unpacking.FAULTS) as error:
            raise GuestImageError(
                f"initrd {path} is damaged ({error}); fetch or build it again"
            ) from None
    if kind == "raw" and linux:
        raise GuestImageError(
            f"initrd {path} is not an initramfs: give a cpio archive (cpio -o -H newc), "
            "plain or compressed"
        )
    return kind


def _check(file: BinaryIO, head: bytes) -> str:
    if head.startswith(_CPIO):
        _walk_cpio(file)
        return "cpio"
    packed = unpacking.format_of(head)
    if packed is None or packed.reader is None:
        return "raw"
    inner = packed.reader(file)
    start = inner.read(6)
    if not start.startswith(_CPIO):
        raise _Damaged("it does not unpack to a cpio archive")
    _walk_cpio(inner, start)
    while inner.read(_CHUNK):
        pass
    return packed.name


def _exactly(file: Readable, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EndsEarly
    return data


def _skip(file: Readable, count: int) -> None:
    while count > 0:
        count -= len(_exactly(file, min(count, _CHUNK)))


def _walk_cpio(file: Readable, start: bytes = b"") -> None:
    """Follow the headers of a ``newc`` archive to its trailer."""
    while True:
        header = start + _exactly(file, 110 - len(start))
        start = b""
        if not header.startswith(_CPIO):
            raise _Damaged("a cpio header is missing")
        fields = [int(header[i : i + 8], 16) for i in range(6, 110, 8)]
        size, name_size = fields[6], fields[11]
        name = _exactly(file, name_size)
        if name == b"TRAILER!!!\0":
            return
        # Name and data are both padded to a multiple of four.
        _skip(file, -(110 + name_size) % 4 + size + -size % 4)
