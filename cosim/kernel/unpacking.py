"""Compressed files: which formats we know, and how to read them piece by piece."""

from __future__ import annotations

import bz2
import gzip
import lzma
import mmap
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, Protocol

import zstandard

_ZSTD_CHUNK = 4096
"""Compressed bytes taken at once: few, because zstd may unpack them to 30,000 times as many."""


class Readable(Protocol):
    """What unpacks: a file that can only be read."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes: fewer than ``size``, or none, only at the end."""
        ...


class EndsEarly(Exception):
    """The compressed data end before what they hold is complete."""


FAULTS = (OSError, lzma.LZMAError, zstandard.ZstdError, ValueError)
"""What reading damaged data raises, beside :class:`EndsEarly` and EOFError if they are cut off."""


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
                raise EndsEarly
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


class Format(NamedTuple):
    """A format of compressed files."""

    name: str
    tool: str
    """The program that unpacks it."""
    reader: Callable[[BinaryIO], Readable] | None
    """Returns what unpacks the rest of a file; None if we cannot."""


_FORMATS = {
    b"\x1f\x8b": Format("gzip", "gunzip", lambda file: gzip.GzipFile(fileobj=file)),
    b"\xfd7zXZ\0": Format("xz", "unxz", lzma.LZMAFile),
    b"\x5d\0\0": Format("lzma", "unlzma", lzma.LZMAFile),
    b"BZh": Format("bzip2", "bunzip2", bz2.BZ2File),
    b"\x28\xb5\x2f\xfd": Format("zstd", "unzstd", _ZstdFile),
    b"\x04\x22\x4d\x18": Format("lz4", "unlz4", None),
    b"\x02\x21\x4c\x18": Format("lz4", "unlz4", None),
    b"\x89LZO\0": Format("lzo", "lzop -d", None),
}


def format_of(head: bytes | mmap.mmap) -> Format | None:
    """Return the format of a file that begins with ``head``; None if it is not compressed."""
    start = head[:8]
    return next((form for magic, form in _FORMATS.items() if start.startswith(magic)), None)
