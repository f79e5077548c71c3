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

_MAGIC = b"\x9f\xeb\x01"
"""The magic number in little-endian order, and the version."""
_HEADER = struct.Struct("<HBBIIIII")
_ARRAY, _STRUCT, _UNION = 3, 4, 5
# Words that follow the first three of a type, by its kind: always, and for each of its members.
_ALWAYS = {1: 1, _ARRAY: 3, 14: 1, 17: 1}
_EACH = {_STRUCT: 3, _UNION: 3, 6: 2, 13: 2, 15: 3, 19: 3}
_KINDS = 20
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
        self._words: list[int] = np.frombuffer(types, dtype="<u4").tolist()
        self._starts = [0]
        """Where each type begins in the words; number 0 is ``void``, which is not stored."""
        self._structures: dict[int, int] = {}
        """Where each structure begins, by the place of its name in the strings."""
        words, at = self._words, 0
        while at + 3 <= len(words):
            kind = words[at + 1] >> 24 & 31
            if not 0 < kind < _KINDS:
                raise ValueError(f"type {len(self._starts)} has the unknown kind {kind}")
            self._starts.append(at)
            if kind == _STRUCT:
                self._structures.setdefault(words[at], at)
            more = _EACH.get(kind, 0) * (words[at + 1] & 0xFFFF)
            at += 3 + _ALWAYS.get(kind, 0) + more
        if at != len(words):
            raise ValueError("the last type is not whole")

    def member(self, structure: str, name: str) -> Member | None:
        """Return the member ``name`` of ``structure``; None if there is no such.

        Members of structures and unions without a name count as members of what they are in.
        """
        known, member = self._string(structure), self._string(name)
        if known not in self._structures or member is None:
            return None
        return self._find(self._structures[known], member, _DEEPEST)

    def _string(self, text: str) -> int | None:
        """Return the offset of a string; each is stored once."""
        found = self._strings.find(b"\0" + text.encode() + b"\0")
        return None if found < 0 else found + 1

    def _find(self, structure: int, name: int, depth: int) -> Member | None:
        words = self._words
        kind, bitfields = words[structure + 1] >> 24 & 31, words[structure + 1] >> 31
        if kind not in (_STRUCT, _UNION) or depth == 0:
            return None
        for number in range(words[structure + 1] & 0xFFFF):
            at = structure + 3 + 3 * number
            named, type_number, bits = words[at : at + 3]
            if bitfields:
                bits &= 0xFFFFFF
            if not 0 <= type_number < len(self._starts):
                return None
            inner = self._starts[type_number]
            if named == name:
                array = words[inner + 1] >> 24 & 31 == _ARRAY
                return Member(bits // 8, words[inner + 5] if array else 1)
            if self._strings[named : named + 1] == b"\0" and type_number:
                found = self._find(inner, name, depth - 1)
                if found is not None:
                    return Member(bits // 8 + found.offset, found.elements)
        return None


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
