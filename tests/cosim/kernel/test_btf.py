"""BTF: a small writer of it, against what the reader says of what was written."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.kernel import btf
from cosim.kernel.btf import Member

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, FUNC_PROTO = 1, 2, 3, 4, 5, 6, 8, 13


@dataclass
class Writer:
    """Writes types in the order in which they are added; returns their numbers."""

    types: list[bytes] = field(default_factory=list)
    strings: bytes = b"\0"

    def name(self, text: str) -> int:
        if not text:
            return 0
        if f"\0{text}\0".encode() not in self.strings:
            self.strings += text.encode() + b"\0"
        return self.strings.index(f"\0{text}\0".encode()) + 1

    def add(self, name: str, kind: int, members: int, last: int, *more: int, flag: int = 0) -> int:
        info = flag << 31 | kind << 24 | members
        self.types.append(
            struct.pack(f"<{3 + len(more)}I", self.name(name), info, last & 0xFFFF_FFFF, *more)
        )
        return len(self.types)

    def composite(
        self, name: str, members: list[tuple[str, int, int]], kind: int = STRUCT, flag: int = 0
    ) -> int:
        words = [x for text, number, bits in members for x in (self.name(text), number, bits)]
        return self.add(name, kind, len(members), 64, *words, flag=flag)

    def image(self) -> bytes:
        types = b"".join(self.types)
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings)
        )
        return header + types + self.strings


def sample() -> Writer:
    write = Writer()
    number = write.add("long", INT, 0, 8, 64)
    letter = write.add("char", INT, 0, 1, 8)
    write.add("", FUNC_PROTO, 2, 0, 0, number, 0, letter)
    write.add("state", ENUM, 2, 4, write.name("ON"), 1, write.name("OFF"), 0)
    name = write.add("", ARRAY, 0, 0, letter, number, 16)
    link = write.composite("list", [("next", number, 0), ("prev", number, 64)])
    inner = write.composite("", [("pgd", number, 64), ("", number, 0)])
    either = write.composite("", [("", inner, 0), ("other", number, 0)], kind=UNION)
    write.composite("mm", [("first", number, 0), ("", either, 128)])
    write.composite("task", [("tasks", link, 32 * 8), ("comm", name, 1000 * 8)], flag=1)
    write.composite("bits", [("one", number, 1 << 24 | 5), ("next", number, 64)], flag=1)
    write.add("task", TYPEDEF, 0, number)
    return write


def test_members_are_found_through_nameless_parts() -> None:
    found = btf.find(b"no type \x9f\xeb\x01 yet" + sample().image() + b"rest")
    assert found is not None
    assert found.member("task", "tasks") == Member(32, 1)
    assert found.member("task", "comm") == Member(1000, 16)
    assert found.member("mm", "pgd") == Member(16 + 8, 1)
    assert found.member("mm", "other") == Member(16, 1)
    # A size stands in front of the offset of a bit field.
    assert found.member("bits", "one") == Member(0, 1)
    assert found.member("bits", "next") == Member(8, 1)
    for structure, name in (
        *(("mm", "tasks"), ("nobody", "pgd"), ("long", "pgd")),
        *(("task", "nothing"), ("list", "comm"), ("state", "ON")),
    ):
        assert found.member(structure, name) is None


def test_a_structure_in_itself_ends() -> None:
    write = Writer()
    write.composite("loop", [("", 1, 0)])
    write.composite("other", [("pgd", 1, 0)])
    found = btf.find(write.image())
    assert found is not None and found.member("loop", "pgd") is None


@pytest.mark.parametrize("kind", [0, 20, 31])
def test_a_kind_that_is_not_known_is_not_guessed(kind: int) -> None:
    write = sample()
    write.add("new", kind, 0, 0)
    assert btf.find(write.image()) is None


def test_an_image_without_types() -> None:
    assert btf.find(b"") is None
    assert btf.find(bytes(10_000)) is None
    assert btf.find(sample().image()[:-1]) is None


@settings(max_examples=200)
@given(st.data())
def test_damage_is_no_traceback(data: st.DataObject) -> None:
    image = bytearray(sample().image())
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    found = btf.find(bytes(image))
    for structure, name in (("mm", "pgd"), ("task", "comm"), ("bits", "one")):
        member = None if found is None else found.member(structure, name)
        assert member is None or member.offset >= 0
