"""Symbol tables: made ones in every layout of kallsyms, ELF against nm, the real kernel."""

from __future__ import annotations

import random
import string
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim import paths
from cosim.errors import GuestImageError, UsageError
from cosim.kernel import kallsyms, symbols

BASE = 0xFFFF_FFFF_8000_0000
# Token numbers that spell a pair; every other number spells its own character or "tk<number>".
PAIRS = {1: "fl", 2: "ush", 3: "tlb", 200: "_all", 255: "local_"}


LAYOUTS = ("6.1", "6.3", "6.12", "7.2")
"""A version of Linux of each layout of the tables."""


def table(
    entries: list[tuple[int, str]], layout: str, *, at: int = 0, relocatable: bool = False
) -> bytes:
    """The kallsyms of ``entries`` (offset, type and name) at ``at`` of an Image.

    Written after the format's description, as ``scripts/kallsyms.c`` orders and aligns it.
    """
    unit = 4 if layout == "7.2" else 8

    def align(data: bytes) -> bytes:
        return data + bytes(-len(data) % unit)

    assert at % unit == 0
    tokens = [
        PAIRS.get(number)
        or (chr(number) if chr(number) in string.printable[:95] else f"tk{number}")
        for number in range(256)
    ]
    names, markers = b"", []
    for index, (_, name) in enumerate(entries):
        if index % 256 == 0:
            markers.append(len(names))
        codes = bytearray()
        while name:
            pair = next((n for n, text in PAIRS.items() if name.startswith(text)), None)
            codes.append(ord(name[0]) if pair is None else pair)
            name = name[len(PAIRS[pair]) if pair is not None else 1 :]
        count = len(codes)
        head = bytes([count]) if count < 128 else bytes([count & 0x7F | 0x80, count >> 7])
        names += head + codes
    strings = [text.encode("latin-1") + b"\0" for text in tokens]
    places = np.cumsum([0, *(len(x) for x in strings)])[:256].astype("<u2")
    order = sorted(range(len(entries)), key=lambda index: entries[index][1][1:])
    parts = {
        "number": len(entries).to_bytes(4, "little"),
        "names": names,
        "markers": np.array(markers, dtype="<u4").tobytes(),
        "tokens": b"".join(strings),
        "index": places.tobytes(),
        "offsets": np.array([offset for offset, _ in entries], dtype="<u4").tobytes(),
        "base": (0 if relocatable else BASE).to_bytes(8, "little"),
        "order": b"".join(index.to_bytes(3, "big") for index in order),
    }
    sequence = {
        "6.1": "offsets base number names markers tokens index",
        "6.3": "offsets base number names markers order tokens index",
        "6.12": "number names markers tokens index offsets base order",
        "7.2": "number names markers tokens index offsets order",
    }[layout]
    blob = b""
    for part in sequence.split():
        if part == "offsets" and layout == "7.2":
            here = at + len(blob) + 4 * np.arange(len(entries))
            own = np.array([offset for offset, _ in entries]) - here
            blob += own.astype("<i4").tobytes()
        else:
            blob += align(parts[part])
    return blob


def made(count: int, seed: int) -> list[tuple[int, str]]:
    choice = random.Random(seed)
    # The first symbol is where the kernel begins; some have the same address.
    offsets = sorted([0, 0, *(choice.randrange(1 << 25) for _ in range(count - 2))])
    letters = string.ascii_letters + string.digits + "_.$"
    entries = []
    for offset in offsets:
        words = [*PAIRS.values(), *choice.choices(letters, k=choice.randrange(1, 20))]
        choice.shuffle(words)
        entries.append((offset, choice.choice("TtDdBbr") + "".join(words[:9])))
    long = "x" * choice.randrange(128, 500)
    entries[choice.randrange(count)] = (offsets[-1], "t" + long)
    return sorted(entries, key=lambda entry: entry[0])


@settings(max_examples=60)
@given(
    count=st.integers(257, 1500) | st.sampled_from([257, 511, 512, 513, 1024]),
    seed=st.integers(0, 1 << 30),
    layout=st.sampled_from(LAYOUTS),
    relocatable=st.booleans(),
)
def test_made_tables_are_found(count: int, seed: int, layout: str, relocatable: bool) -> None:
    entries = made(count, seed)
    noise = random.Random(seed + 1)
    unit = 4 if layout == "7.2" else 8
    front = noise.randbytes(unit * noise.randrange(8, 500)) + bytes(unit * noise.randrange(3))
    if layout == "7.2":
        # Offsets to their own place are negative if the symbol is in front of the tables.
        front += bytes(4 * noise.randrange(1 << 16))
    blob = table(entries, layout, at=len(front), relocatable=relocatable)
    found = kallsyms.find(front + blob + noise.randbytes(999))
    assert found is not None
    assert found.names == [name[1:] for _, name in entries]
    assert found.addresses.tolist() == [BASE + offset for offset, _ in entries]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(5))
def test_damaged_tables_are_not_found(seed: int, layout: str) -> None:
    blob = bytearray(bytes(64) + table(made(600, seed), layout, at=64))
    assert kallsyms.find(bytes(blob)) is not None
    blob[blob.index(b"0\0001\0002\0") + 22] = 0  # ";" becomes empty: the index no longer fits
    assert kallsyms.find(bytes(blob)) is None
    assert kallsyms.find(random.Random(seed).randbytes(100_000)) is None


def test_a_truncated_image_has_no_table() -> None:
    for layout in LAYOUTS:
        blob = bytes(64) + table(made(600, 1), layout, at=64)
        # The order of the names, 1,800 bytes, is not needed.
        for keep in (len(blob) - 2000 - 600 * 4, len(blob) // 2, 100, 1):
            assert kallsyms.find(blob[:keep]) is None


@pytest.fixture
def few() -> symbols.Symbols:
    names = ["start", "twin", "alias", "first", "twin", "last"]
    addresses = [0x1000, 0x1010, 0x2000, 0x2000, 0x3000, BASE]
    return symbols.Symbols(np.array(addresses, dtype=np.uint64), names)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFF, None),
        (0x1000, "start"),
        (0x100F, "start+0xf"),
        (0x1010, "twin"),
        (0x2000, "alias"),
        (0x2FFF, "alias+0xfff"),
        (0x3000, "twin"),
        (BASE, "last"),
        (BASE + 8, "last+0x8"),
        ((1 << 64) - 1, None),
        (0, None),
    ],
)
def test_lookup(few: symbols.Symbols, address: int, name: str | None) -> None:
    assert few.lookup(address) == name
    assert few.describe(address) == f"0x{address:016x}" + (f" ({name})" if name else "")


def test_addresses_of_names(few: symbols.Symbols) -> None:
    assert few.address("first") == 0x2000
    assert few.addresses("twin") == (0x1010, 0x3000)
    assert "twin" in few
    assert "no" not in few
    with pytest.raises(UsageError, match=r"twin has 2 addresses \(0x0000000000001010, 0x"):
        few.address("twin")
    with pytest.raises(UsageError, match="no symbol frist; did you mean first"):
        few.address("frist")
    with pytest.raises(UsageError, match="no symbol nowhere; give an address"):
        few.address("nowhere")


def test_a_kernel_without_symbols(tmp_path: Path) -> None:
    path = tmp_path / "flat"
    path.write_bytes(b"\x13\0\0\0" * 100)
    none = symbols.load(path)
    assert len(none) == 0
    assert none.lookup(0x8000_0000) is None
    with pytest.raises(UsageError, match="no symbols, so main is unknown"):
        none.address("main")
    with pytest.raises(GuestImageError, match="cannot read"):
        symbols.load(tmp_path / "missing")


@pytest.mark.system
def test_elf_symbols_are_those_of_nm(tmp_path: Path) -> None:
    source = tmp_path / "k.s"
    source.write_text(
        """
        .option norelax
        .globl _start, shared
        .equ absolute, 0x1234
        _start: nop
        local: la a0, datum
        .L1: beq a0, a1, .L1
        shared:
        same: ret
        .data
        datum: .quad 1
        """
    )
    elf = tmp_path / "k"
    command = [
        "riscv64-linux-gnu-gcc",
        "-nostdlib",
        "-static",
        "-Wl,-Ttext=0x80200000",
        str(source),
    ]
    subprocess.run([*command, "-o", elf], check=True, timeout=60)
    said = subprocess.run(
        ["riscv64-linux-gnu-nm", elf], capture_output=True, text=True, check=True, timeout=30
    )
    found = symbols.load(elf)
    wanted = [line.split() for line in said.stdout.splitlines()]
    wanted = [x for x in wanted if x[1] not in "aA" and x[2][0] not in "$."]
    assert {"_start", "local", "shared", "same", "datum"} <= {name for _, _, name in wanted}
    assert len(found) == len(wanted)
    for address, _, name in wanted:
        assert found.addresses(name) == (int(address, 16),)
    assert found.lookup(found.address("shared")) == "shared"  # global before local
    assert found.lookup(0x8020_0001) == "_start+0x1"
    stripped = tmp_path / "stripped"
    subprocess.run(["riscv64-linux-gnu-strip", "-o", stripped, elf], check=True, timeout=30)
    assert len(symbols.load(stripped)) == 0


@pytest.mark.system
def test_the_real_kernel_names_what_stands_there() -> None:
    path = paths.guests() / "linux" / "Image"
    found = symbols.load(path)
    image = path.read_bytes()
    assert len(found) > 50_000

    def at(name: str, count: int) -> bytes:
        place = found.address(name) - BASE
        return image[place : place + count]

    assert at("linux_banner", 14) == b"Linux version "
    assert at("hex_asc", 16) == b"0123456789abcdef"
    assert found.address("_start") == BASE
    assert found.address("swapper_pg_dir") % 4096 == 0
    assert found.address("_end") % 4096 == 0
    assert found.address("_stext") < found.address("__riscv_sys_prctl") < found.address("_etext")
    assert found.lookup(found.address("flush_tlb_all") + 2) == "flush_tlb_all+0x2"
