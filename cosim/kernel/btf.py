"""The layout of Linux's structures, from the type information that a kernel carries inside itself.

A kernel with ``CONFIG_DEBUG_INFO_BTF`` has BTF (BPF Type Format) in its read-only data.  The
kernel's ``Documentation/bpf/btf.rst`` describes it: a header, then the types, then the strings that
name them.  Each type is three words (name, kind and number of members, size or another type), and
what its kind adds.  Types are numbered from 1 in the order in which they are stored.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x9f\xeb\x01"
"""The magic number in little-endian order, and the version."""
_HEADER = struct.Struct("<HBBIIIII")
_ARRAY, _STRUCT, _UNION = 3, 4, 5
# Words that follow the first three of a type, by its kind: always, and for each of its members.
_ALWAYS = {1: 1, _ARRAY: 3, 14: 1, 17: 1}
_EACH = {_STRUCT: 3, _UNION: 3, 6: 2, 13: 2, 15: 3, 19: 3}
_KINDS = 20
_FIXED_WORDS = np.array([3 + _ALWAYS.get(kind, 0) for kind in range(32)])
_MEMBER_WORDS = np.array([_EACH.get(kind, 0) for kind in range(32)])
_DEEPEST = 16
"""How deep structures without a name are nested at most."""

Data = bytes | mmap.mmap


class Member(NamedTuple):
    """One member of a structure."""

    offset: int
    """In bytes."""
    elements: int
    """How many elements it has if it is an array, else 1."""


class Btf:
    """The types of one kernel.

    :param types: the bytes of its types.
    :param strings: the bytes of its strings.
    :raises ValueError: when the types are not whole, or one has a kind that is not known here.
    """

    def __init__(self, types: bytes, strings: bytes) -> None:
        self._strings = strings
        self._words: NDArray[np.uint32] = np.frombuffer(types, dtype="<u4")
        # A kernel has some 100,000 types in a million words.  So at each word it is found at once
        # where the next type would begin if one began there, and the walk only follows that.
        info = self._words[1:-1]
        kinds = info >> 24 & 31
        sizes = _FIXED_WORDS[kinds] + _MEMBER_WORDS[kinds] * (info & 0xFFFF)
        behind = memoryview(np.arange(len(sizes)) + sizes)
        starts, at = [], 0
        while at < len(behind):
            starts.append(at)
            at = behind[at]
        if at != len(self._words):
            raise ValueError("the last type is not whole")
        self._starts = np.array(starts, dtype=np.int64)
        """Where each type begins in the words, from number 1 on.  Number 0 is ``void``, which is
        not stored."""
        self._kinds = kinds[self._starts]
        known = (self._kinds > 0) & (self._kinds < _KINDS)
        if not known.all():
            number = int(np.argmin(known))
            raise ValueError(f"type {number + 1} has the unknown kind {self._kinds[number]}")

    def member(self, structure: str, name: str) -> Member | None:
        """Return the member ``name`` of ``structure``; None if there is no such.

        Members of structures and unions without a name count as members of what they are in.
        """
        known, member = self._string(structure), self._string(name)
        if known is None or member is None:
            return None
        named = (self._kinds == _STRUCT) & (self._words[self._starts] == known)
        first = np.flatnonzero(named)[:1]
        return self._find(int(self._starts[first[0]]), member, _DEEPEST) if len(first) else None

    def _string(self, text: str) -> int | None:
        """Return the offset of a string; each is stored once."""
        found = self._strings.find(b"\0" + text.encode() + b"\0")
        return None if found < 0 else found + 1

    def _find(self, structure: int, name: int, depth: int) -> Member | None:
        words = self._words
        kind, members, bitfields = self._information(structure)
        if kind not in (_STRUCT, _UNION) or depth == 0:
            return None
        for at in range(structure + 3, structure + 3 + 3 * members, 3):
            named, type_number, bits = words[at : at + 3].tolist()
            if bitfields:
                bits &= 0xFFFFFF
            if not 0 < type_number <= len(self._starts):
                return None
            inner = int(self._starts[type_number - 1])
            if named == name:
                array = self._information(inner)[0] == _ARRAY
                return Member(bits // 8, int(words[inner + 5]) if array else 1)
            if self._strings[named : named + 1] == b"\0":
                found = self._find(inner, name, depth - 1)
                if found is not None:
                    return Member(bits // 8 + found.offset, found.elements)
        return None

    def _information(self, at: int) -> tuple[int, int, bool]:
        """Return the kind of a type, its number of members, and if they may be bit fields."""
        info = int(self._words[at + 1])
        return info >> 24 & 31, info & 0xFFFF, bool(info >> 31)


def find(image: Data) -> Btf | None:
    """Find the type information in an uncompressed kernel ``image``; None if there is none."""
    at = image.find(_MAGIC)
    while at >= 0:
        found = _at(image, at)
        if found is not None:
            return found
        at = image.find(_MAGIC, at + 1)
    return None


def _at(image: Data, at: int) -> Btf | None:
    if at + _HEADER.size > len(image):
        return None
    header = _HEADER.unpack_from(image, at)
    _, _, flags, length, types, type_bytes, strings, string_bytes = header
    first = at + length
    end = first + strings + string_bytes
    if flags or length < _HEADER.size or not type_bytes or not string_bytes or end > len(image):
        return None
    text = image[first + strings : end]
    if text[0] or text[-1]:
        return None
    try:
        return Btf(image[first + types : first + types + type_bytes], text)
    except ValueError:
        return None
