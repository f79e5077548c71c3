"""Initial RAM disks: the checks that find a damaged file before a guest trips over it."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from cosim.errors import GuestImageError
from cosim.kernel.images import open_regular

_CHUNK = 1 << 20
_ZSTD_CHUNK = 4096
"""Compressed bytes taken at once: few, because zstd may unpack them to 30,000 times as many."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _EndsEarly(Exception):
    pass


class _Damaged(Exception):
    pass


class _ZstdFile:
    """Unpacks the frames of a zstd file.  Zero bytes between frames are padding, as for Linux."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed = b""
        self._unpacked = bytearray()
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def read(self, size: int, /) -> bytes:
        while len(self._unpacked) < size and self._advance():
            pass
        data = bytes(self._unpacked[:size])
        del self._unpacked[:size]
        return data

    def _advance(self) -> bool:
        """Unpack a piece; return False at the end of the file."""
        packed = self._packed or self._file.read(_ZSTD_CHUNK)
        self._packed = b""
        if not packed:
            if self._frame is not None:
                raise _EndsEarly
            return False
        if self._frame is None:
            packed = packed.lstrip(b"\0")
            if not packed:
                return True
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._unpacked += self._frame.decompress(packed)
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = None
        return True


_UNPACKERS: dict[bytes, tuple[str, Callable[[BinaryIO], _Readable]]] = {
    b"\x1f\x8b": ("gzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"\xfd7zXZ\0": ("xz", lzma.LZMAFile),
    b"\x5d\0\0": ("lzma", lzma.LZMAFile),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\x28\xb5\x2f\xfd": ("zstd", _ZstdFile),
}
_CPIO = (b"070701", b"070702")


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
        except (_EndsEarly, EOFError):
            raise GuestImageError(f"initrd {path} is truncated; fetch or build it again") from None
        except (_Damaged, OSError, lzma.LZMAError, zstandard.ZstdError, ValueError) as error:
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
    for magic, (name, unpack) in _UNPACKERS.items():
        if head.startswith(magic):
            inner = unpack(file)
            start = inner.read(6)
            if not start.startswith(_CPIO):
                raise _Damaged("it does not unpack to a cpio archive")
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
        # Name and data are both padded to a multiple of four.
        _skip(file, -(110 + name_size) % 4 + size + -size % 4)
