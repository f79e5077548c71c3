"""A compressed dump of a machine (kdump), as makedumpfile and ``dump-guest-memory`` write it.

Source: makedumpfile's ``IMPLEMENTATION`` file and the header ``diskdump_mod.h``.  In blocks of the
page's size: a header, a sub-header, two bitmaps by page frame (those that exist, those that are
dumped), a descriptor for each dumped page in order, the pages.  A *flattened* dump, which is made
for a pipe, is the same cut into records with their offsets, all big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import zstandard
from numpy.typing import NDArray

from cosim.errors import DumpError, UnreadableMemory
from cosim.paging.physical import PhysicalMemory
from cosim.paging.sources.mapped_file import MappedFile

MAGIC = b"KDUMP   "
FLATTENED_MAGIC = b"makedumpfile\0\0\0\0"

_PAGE = 4096
_HEADER = "<iiiIII"
"""``status``, ``block_size``, ``sub_hdr_size``, ``bitmap_blocks``, ``max_mapnr``,
``total_ram_blocks``."""
_HEADER_OFFSET = 424
_MACHINE_OFFSET = 12 + 4 * 65
"""``utsname.machine``."""
_SPLIT_OFFSET = 12
_MAX_PAGES_64_OFFSET = 96
_DESCRIPTOR = np.dtype([("offset", "<i8"), ("size", "<u4"), ("flags", "<u4"), ("page", "<u8")])
_ZLIB, _LZO, _SNAPPY, _ZSTD = 1, 2, 4, 32
_OTHERS = {_LZO: "lzo", _SNAPPY: "snappy"}
_FLAT_HEADER = 4096
_RECORD = struct.Struct(">qq")


class _Bytes(Protocol):
    def bytes_at(self, offset: int, length: int) -> bytes: ...


class _Flattened:
    """The bytes of a flattened dump, at their offsets in the plain one.

    :raises DumpError: when its records are damaged.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        starts, sizes, places = [], [], []
        at = _FLAT_HEADER
        while True:
            start, size = _RECORD.unpack(file.bytes_at(at, _RECORD.size))
            if start == -1:
                break
            if start < 0 or size <= 0:
                raise DumpError(f"{file.path} is damaged: a record of {size} bytes at {start}")
            at += _RECORD.size
            file.bytes_at(at + size, 0)
            starts.append(start)
            sizes.append(size)
            places.append(at)
            at += size
        # Of records that begin at the same place, the last one counts.
        order = np.argsort(np.array(starts, np.int64), kind="stable")
        self._starts = np.array(starts, np.int64)[order]
        self._sizes = np.array(sizes, np.int64)[order]
        self._places = np.array(places, np.int64)[order]
        ends, next_ = self._starts[:-1] + self._sizes[:-1], self._starts[1:]
        if np.any((ends > next_) & (self._starts[:-1] != next_)):
            raise DumpError(f"{file.path} is damaged: its records overlap")

    def bytes_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes; what no record holds is 0, as in a file with holes.

        :raises DumpError: when they are behind the last record.
        """
        if not len(self._starts) or offset + length > self._starts[-1] + self._sizes[-1]:
            raise DumpError(f"{self._file.path} is cut off: {offset + length:,} bytes are needed")
        out = bytearray(length)
        first = max(int(np.searchsorted(self._starts, offset, side="right")) - 1, 0)
        for row in range(first, len(self._starts)):
            start, size = int(self._starts[row]), int(self._sizes[row])
            if start >= offset + length:
                break
            low, high = max(start, offset), min(start + size, offset + length)
            if low < high:
                place = int(self._places[row]) + low - start
                out[low - offset : high - offset] = self._file.bytes_at(place, high - low)
        return bytes(out)


class Kdump(PhysicalMemory):
    """The physical memory in a compressed dump.

    :raises DumpError: when the file is damaged, or is no dump of this format that is understood.
    """

    def __init__(self, file: MappedFile) -> None:
        path = file.path
        flattened = file.data[: len(FLATTENED_MAGIC)] == FLATTENED_MAGIC
        bytes_: _Bytes = _Flattened(file) if flattened else file
        self._bytes, self._path = bytes_, path
        header = bytes_.bytes_at(0, _PAGE)
        if header[: len(MAGIC)] != MAGIC:
            raise DumpError(f"{path} is no kdump file")
        machine = header[_MACHINE_OFFSET : _MACHINE_OFFSET + 65].split(b"\0")[0]
        if machine not in (b"", b"riscv64", b"Unknown"):
            raise DumpError(f"{path} is not a dump of a 64-bit RISC-V machine")
        version = struct.unpack_from("<i", header, len(MAGIC))[0]
        fields = struct.unpack_from(_HEADER, header, _HEADER_OFFSET)
        _, page, sub_blocks, bitmap_blocks, pages, _ = fields
        if page != _PAGE or not 0 < sub_blocks < 1 << 20:
            raise DumpError(f"{path} is damaged, or has pages of {page} bytes instead of {_PAGE}")
        sub = bytes_.bytes_at(_PAGE, 104)
        if struct.unpack_from("<i", sub, _SPLIT_OFFSET)[0]:
            raise DumpError(f"{path} is a part of a split dump; join the parts with makedumpfile")
        if version >= 6:
            pages = struct.unpack_from("<Q", sub, _MAX_PAGES_64_OFFSET)[0] or pages
        bitmap = bytes_.bytes_at(_PAGE * (1 + sub_blocks), _PAGE * bitmap_blocks)
        # The second bitmap says which pages are dumped; very old dumps have only one.
        second = bitmap[len(bitmap) // 2 :] if pages <= 4 * len(bitmap) else bitmap
        if pages > 8 * len(second):
            raise DumpError(f"{path} is damaged: its bitmap is too short for {pages:,} pages")
        bits = np.unpackbits(np.frombuffer(second, np.uint8), bitorder="little")[:pages]
        self._frames: NDArray[np.int64] = np.flatnonzero(bits)
        if not len(self._frames):
            raise DumpError(f"{path} holds no memory")
        table = _PAGE * (1 + sub_blocks + bitmap_blocks)
        size = len(self._frames) * _DESCRIPTOR.itemsize
        self._descriptors = np.frombuffer(bytes_.bytes_at(table, size), _DESCRIPTOR)

    @property
    def span(self) -> tuple[int, int]:
        """The first address, and the end."""
        return int(self._frames[0]) * _PAGE, (int(self._frames[-1]) + 1) * _PAGE

    def read(self, address: int, length: int) -> bytes:
        """Return ``length`` bytes.

        :raises UnreadableMemory: when one of them is in a page that is not dumped.
        :raises DumpError: when a page is damaged or compressed in a way that is not understood.
        """
        parts = []
        while length:
            frame, inside = divmod(address, _PAGE)
            row = int(np.searchsorted(self._frames, frame))
            if row == len(self._frames) or self._frames[row] != frame:
                raise UnreadableMemory(f"{address:#x} is not in the dump")
            part = min(length, _PAGE - inside)
            parts.append(self._page(row, _PAGE)[inside : inside + part])
            address += part
            length -= part
        return b"".join(parts)

    def heads(self, length: int) -> Iterator[tuple[int, bytes]]:
        """Yield the address and the first bytes of each page.

        :raises DumpError: when a page is damaged or compressed in a way that is not understood.
        """
        for row, frame in enumerate(self._frames.tolist()):
            yield frame * _PAGE, self._page(row, length)[:length]

    def _page(self, row: int, wanted: int) -> bytes:
        """Return a page, of which at least ``wanted`` bytes are needed."""
        offset, size, flags, _ = self._descriptors[row].tolist()
        name = _OTHERS.get(flags)
        if name:
            raise DumpError(
                f"{self._path} is compressed with {name}; make the dump with zlib, zstd or without "
                "compression"
            )
        if size > 2 * _PAGE:
            raise DumpError(f"{self._path} is damaged: a page of {size:,} bytes")
        data = self._bytes.bytes_at(offset, size)
        try:
            if flags & _ZLIB:
                data = zlib.decompressobj().decompress(data, wanted)
            elif flags & _ZSTD:
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=_PAGE)
        except (zlib.error, zstandard.ZstdError) as error:
            raise DumpError(f"{self._path} is damaged: a page cannot be read: {error}") from None
        if len(data) < wanted:
            raise DumpError(f"{self._path} is damaged: a page has {len(data)} bytes")
        return data
