"""The symbol table that a Linux kernel carries inside itself.

With ``CONFIG_KALLSYMS`` the kernel's read-only data holds (the kernel's ``scripts/kallsyms.c``
writes it, ``kernel/kallsyms.c`` reads it):

- the number of symbols N (u32);
- the names: for each symbol a length, then that many token numbers.  The length is one byte, or
  two if bit 7 of the first is set (seven bits each, the low ones first).  The first character that
  the tokens spell is the symbol's type, as ``nm`` prints it;
- the markers (u32): where every 256th symbol starts in the names;
- the token table: 256 strings, each ended by a zero byte;
- the token index (u16): where each string starts in the token table;
- the offsets (32 bits), N of them, for addresses in rising order;
- the order of the names (3 bytes for each), which is not needed here.

What follows what has changed over time:

======================  =====================================================================
Linux                   layout
======================  =====================================================================
until 6.1               offsets, base (u64), number, names, markers, tokens, index
6.2 and 6.3             the same, with the order of the names between markers and tokens
6.4 to 7.1              number, names, markers, tokens, index, offsets, base, order
since 7.2               number, names, markers, tokens, index, offsets, order
======================  =====================================================================

Until 7.1 an address is the base plus an unsigned offset, and each part is aligned to 8 bytes.
Since 7.2 each offset is signed and relative to the address at which it is stored, and each part is
aligned to 4 bytes.

Nothing points at these tables, so their own redundancy finds them: the strings of the digits
follow each other in every token table, the index must say where the 256 strings are, and the
markers must agree with the names.  The tables of a kernel with 256 symbols or fewer are not
found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LINK_BASE = 0xFFFF_FFFF_8000_0000
"""Where riscv64 Linux is linked, and so the address of the first byte of an Image."""

_LINK_BASE_SIGNED = LINK_BASE - (1 << 64)
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_LONGEST_NAME = 1024
"""The most bytes that one name takes; the kernel's own limit is 512 characters."""
_LONGEST_ORDER = 4 << 20
"""How far the markers may be in front of the token table: 3 bytes for each of 1.4 million names."""


@dataclass(frozen=True)
class KernelSymbols:
    """What :func:`find` found: N addresses in rising order, and their names."""

    addresses: NDArray[np.uint64]
    names: list[str]


@dataclass(frozen=True)
class _Tokens:
    start: int
    strings: list[bytes]
    end: int
    """The first byte behind the index."""


@dataclass(frozen=True)
class _Names:
    spans: list[tuple[int, int]]
    """The first byte of each name's tokens, and the first byte behind them."""
    number_at: int
    """Where the number of symbols is."""


def find(image: bytes) -> KernelSymbols | None:
    """Find and unpack the tables in the uncompressed Linux ``image``; None if there are none.

    :param image: its first byte is the one that is linked at :data:`LINK_BASE`.
    """
    for tokens in _token_tables(image):
        for names in _names_before(image, tokens.start):
            addresses = _addresses(image, names, tokens.end)
            if addresses is not None:
                # The first character is the type.
                spelt = _spell(image, names.spans, tokens.strings)
                return KernelSymbols(addresses, [name[1:] for name in spelt])
    return None


def _aligned(place: int, unit: int) -> int:
    return place + -place % unit


def _token_tables(image: bytes) -> Iterator[_Tokens]:
    digits = image.find(_DIGITS)
    while digits >= 0:
        # 208 strings follow, from "0" on; then comes the index, which tells the start.
        rest = image[digits : digits + 65536].split(b"\0", 208)
        end = digits + sum(len(string) + 1 for string in rest[:208])
        for index_at in sorted({_aligned(end, 4), _aligned(end, 8)}):
            if len(rest) < 209 or index_at + 512 > len(image):
                continue
            index = struct.unpack_from("<256H", image, index_at)
            start = digits - index[48]
            if index[0] == 0 and start >= 0:
                strings = image[start:end].split(b"\0")[:-1]
                places = np.cumsum([0, *(len(string) + 1 for string in strings)])[:-1]
                if tuple(places.tolist()) == index:
                    yield _Tokens(start, strings, index_at + 512)
        digits = image.find(_DIGITS, digits + 1)


def _names_before(image: bytes, table: int) -> Iterator[_Names]:
    """Yield the names that may belong to the token table at ``table``."""
    # Search for the markers: a 0, then values that rise by the length of 256 names.
    first = max(0, table - _LONGEST_ORDER) & ~3
    words = np.frombuffer(image, dtype="<u4", count=(table - first) // 4, offset=first)
    steps = np.diff(words.astype(np.int64))
    rises = (steps >= 512) & (steps <= 256 * _LONGEST_NAME)
    falls = np.append(np.flatnonzero(~rises), len(steps))
    starts = np.flatnonzero((words[:-1] == 0) & rises)
    for start in starts[::-1].tolist():
        most = int(falls[np.searchsorted(falls, start)]) - start + 1
        # What follows the markers may look like one more.
        for many in range(most, max(most - 2, 1), -1):
            markers = words[start : start + many]
            yield from _names_at(image, first + 4 * start, markers, table)


def _names_at(image: bytes, end: int, markers: NDArray[np.uint32], table: int) -> Iterator[_Names]:
    """Yield the names that end before the ``markers``, which are at ``end``."""
    full = 256 * (len(markers) - 1)
    behind = end + 4 * len(markers)
    # The last marker leaves at most 256 names to the end of the names.
    latest = (end - int(markers[-1])) & ~3
    earliest = max(8, latest - 256 * _LONGEST_NAME)
    if latest < earliest:
        return
    numbers = np.frombuffer(
        image, dtype="<u4", count=(latest - earliest) // 4 + 2, offset=earliest - 8
    )
    for place in np.flatnonzero((numbers > full) & (numbers <= full + 256))[::-1].tolist():
        number_at, count = earliest - 8 + 4 * place, int(numbers[place])
        for unit in (4, 8):
            begin = _aligned(number_at + 4, unit)
            ends = {_aligned(behind, unit), _aligned(_aligned(behind, unit) + 3 * count, unit)}
            if number_at % unit or begin > latest or table not in ends:
                continue
            spans = _walk(image, begin, count, markers, end)
            if spans is not None:
                yield _Names(spans, number_at)


def _walk(
    image: bytes, begin: int, count: int, markers: NDArray[np.uint32], end: int
) -> list[tuple[int, int]] | None:
    place = begin
    spans: list[tuple[int, int]] = []
    for number in range(count):
        if number % 256 == 0 and place - begin != markers[number // 256]:
            return None
        if place + 1 >= end:
            return None
        length = image[place]
        place += 1
        if length & 0x80:
            length = length & 0x7F | image[place] << 7
            place += 1
        spans.append((place, place + length))
        place += length
    return spans if 0 <= end - place < 8 else None


def _addresses(image: bytes, names: _Names, behind: int) -> NDArray[np.uint64] | None:
    """Return the addresses; the offsets are ``behind`` the index or before the number."""
    count = len(names.spans)
    size = 4 * count
    if behind + size <= len(image):
        own = np.frombuffer(image, dtype="<i4", count=count, offset=behind).astype(np.int64)
        # The first symbol is in front of the table; an unsigned offset of it is 0.
        found = _rising(_LINK_BASE_SIGNED + behind + 4 * np.arange(count) + own)
        if own[0] < 0 and found is not None:
            return found
    for offsets_at, base_at in (
        (_aligned(behind, 8), _aligned(_aligned(behind, 8) + size, 8)),
        (names.number_at - 8 - _aligned(size, 8), names.number_at - 8),
    ):
        if offsets_at < 0 or base_at + 8 > len(image):
            continue
        offsets = np.frombuffer(image, dtype="<u4", count=count, offset=offsets_at)
        (base,) = struct.unpack_from("<q", image, base_at)
        # The base is 0 if the kernel relocates itself.
        if base <= 0 and offsets[-1] != 0:
            found = _rising(offsets.astype(np.int64) + (base or _LINK_BASE_SIGNED))
            if found is not None:
                return found
    return None


def _rising(addresses: NDArray[np.int64]) -> NDArray[np.uint64] | None:
    return addresses.astype(np.uint64) if (np.diff(addresses) >= 0).all() else None


def _spell(image: bytes, spans: list[tuple[int, int]], tokens: list[bytes]) -> list[str]:
    spelling = {number: token.decode("latin-1") for number, token in enumerate(tokens)}
    first, last = spans[0][0], spans[-1][1]
    text = image[first:last].decode("latin-1")
    return [text[a - first : b - first].translate(spelling) for a, b in spans]
