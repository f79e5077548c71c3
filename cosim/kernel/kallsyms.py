"""The symbol table that a Linux kernel carries inside itself.

With ``CONFIG_KALLSYMS`` the kernel's read-only data holds, each aligned to 8 bytes:

- the number of symbols N (u32);
- the names: for each symbol a length, then that many token numbers.  The length is one byte, or
  two if bit 7 of the first is set (seven bits each, the low ones first).  The first character that
  the tokens spell is the symbol's type, as ``nm`` prints it;
- the markers (u32): where every 256th symbol starts in the names;
- the token table: 256 strings, each ended by a zero byte;
- the token index (u16): where each string starts in the token table;
- the offsets (u32), N of them in rising order, and the base (u64) that is added to each.

Since Linux 6.4 offsets and base follow the token index; before, they preceded the number of
symbols.  Nothing points at these tables, so their own redundancy finds them: the strings of the
digits follow each other in every token table, the index must say where the 256 strings are, and
the markers must agree with the names.  The tables of a kernel with 256 symbols or fewer are not
found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

LINK_BASE = 0xFFFF_FFFF_8000_0000
"""Where riscv64 Linux is linked; used if the base is 0 because the kernel relocates itself."""

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_LONGEST_NAME = 1024
"""The most bytes that one name takes; the kernel's own limit is 512 characters."""


@dataclass(frozen=True)
class KernelSymbols:
    """What :func:`find` found: N addresses in rising order, and their names."""

    addresses: NDArray[np.uint64]
    names: list[str]


def find(image: bytes) -> KernelSymbols | None:
    """Find and unpack the tables in the uncompressed kernel ``image``; None if there are none."""
    for table, tokens, index in _token_tables(image):
        names = _names(image, table)
        if names is None:
            continue
        count, starts, begin = names
        offsets = _offsets(image, count, begin - 8, index + 512)
        if offsets is None:
            continue
        # The first character is the type.
        return KernelSymbols(offsets, [name[1:] for name in _spell(image, starts, tokens)])
    return None


def _token_tables(image: bytes) -> Iterator[tuple[int, list[bytes], int]]:
    """Yield every token table: its place, its 256 strings, and the place of its index."""
    digits = image.find(_DIGITS)
    while digits >= 0:
        # 48 strings precede that of "0", and whatever precedes them ends in a zero byte.
        start = digits
        for _ in range(49):
            start = image.rfind(b"\0", max(0, start - 256), start)
            if start < 0:
                break
        else:
            strings = image[start + 1 : start + 65536].split(b"\0", 256)[:256]
            places = list(accumulate((len(x) + 1 for x in strings), initial=0))
            if len(strings) == 256 and places[255] < 1 << 16:
                wanted = struct.pack("<256H", *places[:256])
                near = start + 1 + places[256]
                index = image.find(wanted, near, near + 64 + len(wanted))
                if index >= 0:
                    yield start + 1, strings, index
        digits = image.find(_DIGITS, digits + 1)


def _names(image: bytes, table: int) -> tuple[int, list[tuple[int, int]], int] | None:
    """Return how many symbols, (start, end) of each one's tokens, and where the names begin."""
    # Backwards from the token table: padding, then the markers, falling to the first, 0.
    end = table & ~7
    while end >= 4 and image[end - 4 : end] == bytes(4):
        end -= 4
    place = end
    marker = 1 << 32
    markers: list[int] = []
    while marker > 0:
        place -= 4
        if place < 0:
            return None
        (value,) = struct.unpack_from("<I", image, place)
        if value >= marker:
            return None
        markers.append(value)
        marker = value
    markers.reverse()
    # The last marker leaves at most 256 names to the end of the names.
    latest = (place - markers[-1]) & ~7
    earliest = max(8, latest - 256 * _LONGEST_NAME)
    full = 256 * (len(markers) - 1)
    for begin in range(latest, earliest, -8):
        (count,) = struct.unpack_from("<I", image, begin - 8)
        if full < count <= full + 256:
            starts = _walk_names(image, begin, count, markers, place)
            if starts is not None:
                return count, starts, begin
    return None


def _walk_names(
    image: bytes, begin: int, count: int, markers: list[int], end: int
) -> list[tuple[int, int]] | None:
    place = begin
    starts: list[tuple[int, int]] = []
    for number in range(count):
        if number % 256 == 0 and place - begin != markers[number // 256]:
            return None
        if place >= end:
            return None
        length = image[place]
        place += 1
        if length & 0x80:
            length = length & 0x7F | image[place] << 7
            place += 1
        starts.append((place, place + length))
        place += length
    return starts if 0 <= end - place < 8 else None


def _offsets(image: bytes, count: int, before: int, behind: int) -> NDArray[np.uint64] | None:
    """Return the addresses; the offsets are ``behind`` the token index or ``before`` the count."""
    size = (4 * count + 7) & ~7
    behind = (behind + 7) & ~7
    for offsets_at, base_at in ((behind, behind + size), (before - 8 - size, before - 8)):
        if offsets_at < 0 or base_at + 8 > len(image):
            continue
        offsets = np.frombuffer(image, dtype="<u4", count=count, offset=offsets_at)
        (base,) = struct.unpack_from("<Q", image, base_at)
        if 0 < base < 1 << 63 or offsets[-1] == 0:
            continue
        if (np.diff(offsets.astype(np.int64)) >= 0).all():
            return offsets.astype(np.uint64) + np.uint64(base or LINK_BASE)
    return None


def _spell(image: bytes, starts: list[tuple[int, int]], tokens: list[bytes]) -> list[str]:
    spelling = {number: token.decode("latin-1") for number, token in enumerate(tokens)}
    first, last = starts[0][0], starts[-1][1]
    text = image[first:last].decode("latin-1")
    return [text[a - first : b - first].translate(spelling) for a, b in starts]
