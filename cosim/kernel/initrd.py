"""Initial RAM disks: the checks that find a damaged file before a guest trips over it."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from cosim.errors import GuestImageError
from cosim.kernel.images import open_regular

_CHUNK = 1 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


_UNPACKERS: dict[bytes, tuple[str, Callable[[BinaryIO], _Readable]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"\xfd7zXZ\0": ("xz", lzma.LZMAFile),
    b"\x5d\0\0": ("lzma", lzma.LZMAFile),
    b"BZh": ("bzip2", bz2.BZ2File),
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_CPIO = (b"070701", b"070702")


class _EndsEarly(Exception):
    pass


class _Damaged(Exception):
    pass


def inspect_initrd(path: Path | str, *, linux: bool = True) -> str:
    """Check the initrd ``path`` from end to end; return its format (``cpio``, ``gzip``, ...).

    Compressed files are unpacked in pieces and nothing is kept (zstd: only its frames are
    checked, as Python 3.11 cannot unpack it).  For a kernel that is not Linux (``linux`` False)
    any format that we do not know passes as ``raw``: what it wants is its own affair.

    :raise GuestImageError: when it is missing, truncated, damaged or no initramfs.
    """
    path = Path(path)
    with open_regular(path, "initrd") as file:
        head = file.read(8)
        file.seek(0)
        try:
            kind = _check(file, head)
        except (_EndsEarly, EOFError):
            raise GuestImageError(f"initrd {path} is truncated; fetch or build it again") from None
        except (_Damaged, OSError, lzma.LZMAError, ValueError) as error:
            raise GuestImageError(
                f"initrd {path} is damaged ({error}); fetch or build it again"
            ) from None
    if kind == "raw" and linux:
        raise GuestImageError(
            f"initrd {path} is no initramfs; Linux wants a cpio archive (cpio -H newc), "
            "plain or compressed"
        )
    return kind


def _check(file: BinaryIO, head: bytes) -> str:
    if head.startswith(_CPIO):
        _walk_cpio(file)
        return "cpio"
    if head.startswith(_ZSTD):
        _walk_zstd(file)
        return "zstd"
    for magic, (name, unpack) in _UNPACKERS.items():
        if head.startswith(magic):
            inner = unpack(file)
            start = inner.read(6)
            if not start.startswith(_CPIO):
                raise _Damaged("what it unpacks to is no cpio archive")
            _walk_cpio(inner, start)
            while inner.read(_CHUNK):
                pass
            return name
    return "raw"


def _exactly(file: _Readable, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _EndsEarly
    return data


def _skip(file: _Readable, count: int) -> None:
    while count > 0:
        count -= len(_exactly(file, min(count, _CHUNK)))


def _walk_cpio(file: _Readable, start: bytes = b"") -> None:
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
        # Name and data are both padded, so that what follows stands at a multiple of four.
        _skip(file, -(110 + name_size) % 4 + size + -size % 4)


def _walk_zstd(file: BinaryIO) -> None:
    """Follow the frames and blocks of a zstd file to its end (RFC 8878, section 3)."""
    frames = 0
    while True:
        magic = file.read(4)
        if not magic.strip(b"\0"):
            if not magic:
                break
            continue  # padding between archives
        if len(magic) < 4:
            raise _EndsEarly
        if 0x184D2A50 <= int.from_bytes(magic, "little") <= 0x184D2A5F:
            _skip(file, int.from_bytes(_exactly(file, 4), "little"))
            continue
        if magic != _ZSTD:
            raise _Damaged("a zstd frame is missing")
        (descriptor,) = _exactly(file, 1)
        single = descriptor >> 5 & 1
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        content = (single, 2, 4, 8)[descriptor >> 6]
        _skip(file, (1 - single) + dictionary + content)
        last = 0
        while not last:
            block = int.from_bytes(_exactly(file, 3), "little")
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            if kind == 3:
                raise _Damaged("a zstd block is of no known kind")
            _skip(file, 1 if kind == 1 else size)
        _skip(file, 4 if descriptor >> 2 & 1 else 0)
        frames += 1
    if not frames:
        raise _EndsEarly
