"""Dumps of every format hold the same memory, and damaged ones are refused in one line."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cosim.errors import DumpError, UnreadableMemory
from cosim.paging.physical import PhysicalMemory
from cosim.paging.sources.dumps import linux_satp, open_core, open_image
from tests.cosim.paging.sources.kdump_writer import PAGE, flattened, kdump

BASE = 0x8000_0000
NOTES = b"""OSRELEASE=6.12.0
SYMBOL(swapper_pg_dir)=ffffffff81dcb000
NUMBER(VA_BITS)=39
NUMBER(va_kernel_pa_offset)=0xfffffffeffe00000
"""


def pages() -> dict[int, bytes]:
    rng = random.Random(1)
    found = {BASE + PAGE * i: bytes([i]) * PAGE for i in (0, 1, 2, 5, 9)}
    found[BASE + PAGE * 1] = rng.randbytes(PAGE)
    found[BASE + PAGE * 9] = NOTES.ljust(PAGE, b"\0")
    return found


def elf(held: dict[int, bytes], *, machine: int = 243, kind: int = 4, physical: int = 1) -> bytes:
    """An ELF core with a segment for each run of pages, at odd offsets in the file."""
    runs: list[tuple[int, bytes]] = []
    for address, data in sorted(held.items()):
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1] = (runs[-1][0], runs[-1][1] + data)
        else:
            runs.append((address, data))
    at = 64 + 56 * len(runs) + 4
    header = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header += struct.pack(
        "<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, len(runs), 0, 0, 0
    )
    body = b""
    for address, data in runs:
        where = at + len(body)
        size = len(data)
        header += struct.pack("<IIQQQQQQ", 1, 7, where, 0, address * physical, size, size, 0)
        body += data
    return header + b"\0" * 4 + body


FORMATS: dict[str, Callable[[dict[int, bytes]], bytes]] = {
    "elf": elf,
    "none": lambda held: kdump(held, "none"),
    "zlib": lambda held: kdump(held, "zlib"),
    "zstd": lambda held: kdump(held, "zstd"),
    "flattened": lambda held: flattened(kdump(held)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same(name: str, tmp_path: Path) -> None:
    held = pages()
    path = tmp_path / "core"
    path.write_bytes(FORMATS[name](held))
    memory = open_core(path)
    assert memory.span == (BASE, BASE + 10 * PAGE)
    for address, data in held.items():
        assert memory.read(address, PAGE) == data
        assert memory.read(address + 100, 16) == data[100:116]
    # Across two pages, and where nothing is.
    assert memory.read(BASE + PAGE - 8, 16) == held[BASE][-8:] + held[BASE + PAGE][:8]
    for address in (0, BASE - 8, BASE + 3 * PAGE, BASE + 3 * PAGE - 8, BASE + 10 * PAGE, 1 << 55):
        with pytest.raises(UnreadableMemory):
            memory.read(address, 16)
    check_tables(memory, held)
    assert dict(memory.heads(10)) == {address: data[:10] for address, data in held.items()}
    assert linux_satp(memory) == 8 << 60 | 0x81FCB


def check_tables(memory: PhysicalMemory, held: dict[int, bytes]) -> None:
    asked = np.array([BASE + PAGE * i for i in (5, 3, 1, 1 << 20)])
    entries, readable = memory.tables(asked)
    assert readable.tolist() == [True, False, True, False]
    assert entries[0].tobytes() == held[BASE + 5 * PAGE]
    assert entries[2].tobytes() == held[BASE + PAGE]
    assert not entries[1].any() and not entries[3].any()


def test_a_raw_image_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    held = pages()
    path.write_bytes(b"".join(held.get(BASE + PAGE * i, bytes(PAGE)) for i in range(10)))
    memory = open_image(path, BASE)
    assert memory.span == (BASE, BASE + 10 * PAGE)
    assert memory.read(BASE + PAGE, PAGE) == held[BASE + PAGE]
    with pytest.raises(UnreadableMemory):
        memory.read(BASE + 10 * PAGE - 8, 16)
    assert linux_satp(memory) == 8 << 60 | 0x81FCB


def test_notes_that_say_too_little_give_no_root(tmp_path: Path) -> None:
    path = tmp_path / "core"
    for notes in (b"", NOTES.replace(b"=39", b"=33"), NOTES[:40], b"OSRELEASE=%s\0"):
        path.write_bytes(elf({BASE: notes.ljust(PAGE, b"\0")}))
        assert linux_satp(open_core(path)) is None


def damaged() -> dict[str, tuple[bytes, str]]:
    held = pages()
    good = kdump(held)
    whole = elf(held)
    flat = flattened(good)
    split = bytearray(good)
    struct.pack_into("<i", split, PAGE + 12, 1)
    small = bytearray(good)
    struct.pack_into("<I", small, 436, 0)
    other = bytearray(good)
    struct.pack_into("<i", other, 428, 65536)
    negative = flat[:PAGE] + struct.pack(">qq", 5, -7) + flat[PAGE + 16 :]
    return {
        "nothing of ours": (b"hello" * 1000, "neither an ELF core nor a kdump file"),
        "empty": (b"", "cannot read"),
        "not for us": (elf(held, machine=62), "not a dump of a 64-bit RISC-V machine"),
        "program": (elf(held, kind=2), "no core dump"),
        "process": (elf(held, physical=0), "no physical addresses"),
        "cut header": (whole[:70], "damaged"),
        "cut body": (whole[:-1], "cut off or damaged"),
        "kdump of x86": (kdump(held, machine="x86_64"), "not a dump of a 64-bit RISC-V machine"),
        "cut kdump": (good[: 3 * PAGE], "cut off or damaged"),
        "part": (bytes(split), "part of a split dump"),
        "no bitmap": (bytes(small), "too short"),
        "large pages": (bytes(other), "pages of 65536 bytes"),
        "cut records": (flat[:-16], "cut off or damaged"),
        "bad record": (negative, "a record of -7 bytes"),
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_whole_dump_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, reason = damaged()[name]
    path = tmp_path / "core"
    path.write_bytes(data)
    with pytest.raises(DumpError, match=reason) as caught:
        open_core(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_pages_that_cannot_be_decompressed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "core"
    good = kdump({BASE: bytes(PAGE)})
    for data, reason in (
        (kdump({BASE: bytes(PAGE)}, "lzo"), "compressed with lzo"),
        (kdump({BASE: bytes(PAGE)}, "snappy"), "compressed with snappy"),
        (good[:-8] + b"\xff" * 8, "a page"),
        (kdump({BASE: bytes(PAGE)}, "zstd")[:-8] + b"\xff" * 8, "a page"),
    ):
        path.write_bytes(data)
        memory = open_core(path)
        with pytest.raises(DumpError, match=reason):
            memory.read(BASE, PAGE)


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="No such file"):
        open_core(tmp_path / "none")
    with pytest.raises(DumpError, match="not a regular file"):
        open_core(tmp_path)
