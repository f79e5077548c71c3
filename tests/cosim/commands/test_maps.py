"""`cosim maps` and `cosim find` on images, dumps and traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim import cli
from hypervisor_model.events import Kind, Satp, empty
from hypervisor_model.jit import signed
from tests.cosim.paging.sources.kdump_writer import kdump
from tests.cosim.streams import write_trace

BASE = 0x8000_0000
SATP = 8 << 60 | 0x80001
TABLE = BASE + 0x3000
FINE = 0xCF

Command = Callable[..., tuple[Any, str, str]]
"""Runs `cosim`: exit status, stdout and stderr."""


def leaf(page: int, bits: int = FINE) -> int:
    return (BASE + page * 0x1000) >> 2 | bits


WORDS = {
    BASE + 0x1000 + 8: (BASE + 0x2000) >> 2 | 1,
    BASE + 0x2000: TABLE >> 2 | 1,
    TABLE: leaf(9),
    TABLE + 8: leaf(10),
    TABLE + 16: leaf(10, 0xD3),
    TABLE + 24: leaf(20) | 1 << 61,
    # A G-stage that maps the first GiB of RAM to itself.
    BASE + 0x4000 + 8 * 2: BASE >> 2 | FINE | 0x10,
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    words = np.zeros((1 << 20) // 8, dtype=np.uint64)
    for address, value in WORDS.items():
        words[(address - BASE) >> 3] = value
    path = tmp_path / "ram"
    path.write_bytes(words.tobytes())
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Event 8 makes a third page; event 9 takes the first away."""
    batch = empty(10)
    rows = [
        (Kind.TABLE_ADD, BASE + 0x1000, 2, 0),
        (Kind.TABLE_ENTRY, BASE + 0x1008, 0, WORDS[BASE + 0x1008]),
        (Kind.TABLE_ADD, BASE + 0x2000, 1, 0),
        (Kind.TABLE_ENTRY, BASE + 0x2000, 0, WORDS[BASE + 0x2000]),
        (Kind.TABLE_ADD, TABLE, 0, 0),
        (Kind.TABLE_ENTRY, TABLE, 0, leaf(9)),
        (Kind.TABLE_ENTRY, TABLE + 8, 0, leaf(10)),
        (Kind.SATP_WRITE, 0, SATP, 0),
        (Kind.PTE_WRITE, TABLE + 16, 0, leaf(11)),
        (Kind.PTE_WRITE, TABLE, leaf(9), 0),
    ]
    for event, (kind, a, b, c) in zip(batch, rows, strict=True):
        event["kind"] = int(kind)
        event["a"], event["b"], event["c"] = a, signed(b), signed(c)
        event["sub"] = Satp.SATP
    write_trace(tmp_path / "t", batch)
    return tmp_path / "t"


@pytest.fixture
def cosim(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([*map(str, argv)])
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run


LINES = """\
0x0000000040000000-0x0000000040001fff  pa 0x80009000  8 KiB  4K  DA--XWRV
0x0000000040002000-0x0000000040002fff  pa 0x8000a000  4 KiB  4K  DA-U--RV
"""


def test_the_ranges_of_an_image(cosim: Command, image: Path) -> None:
    status, out, err = cosim("maps", "--ram", image, "--base", BASE, "--satp", SATP)
    assert (status, err) == (0, "")
    assert out == LINES + (
        "Sv39, satp 0x8000000000080001: 2 ranges, 12 KiB\n"
        "not followed, for 0x40003000: entry 0x20000000200050cf at 0x80003018 (S, level 0): "
        "the memory type (PBMT) is reserved, or Svpbmt is off\n"
    )
    _, out, _ = cosim("maps", "--ram", image, "--base", BASE, "--satp", SATP, "--svpbmt")
    assert "pa 0x80014000  4 KiB  4K  DA--XWRV  NC\n" in out


def test_two_stages_as_json(cosim: Command, image: Path) -> None:
    words = ("--ram", image, "--base", BASE, "--vsatp", SATP, "--hgatp", 8 << 60 | 0x80004)
    _, out, _ = cosim("maps", *words, "--json")
    document = json.loads(out)
    assert document["mode"] == "Sv39 on Sv39x4"
    assert (document["bytes"], document["unbacked_bytes"]) == (0x3000, 0)
    assert document["ranges"][0] == {
        "va": 0x4000_0000,
        "size": 0x2000,
        "pa": BASE + 0x9000,
        "perm": "DA--XWRV",
        "page_size": 4096,
        "pbmt": "pma",
        "gpa": BASE + 0x9000,
        "g_perm": "DA-UXWRV",
        "g_pbmt": "pma",
    }
    assert [one["va"] for one in document["problems"]] == [0x4000_3000]
    _, out, _ = cosim("find", *words, "--gpa", hex(BASE + 0xA008))
    assert "va 0x0000000040001008  gpa 0x8000a008  4K  DA--XWRV on DA-UXWRV" in out


def test_filters(cosim: Command, image: Path) -> None:
    def vas(*options: object) -> list[int]:
        words = ("--ram", image, "--base", BASE, "--satp", SATP, "--svpbmt", "--json")
        status, out, _ = cosim("maps", *words, *options)
        assert status == 0
        return [one["va"] - 0x4000_0000 for one in json.loads(out)["ranges"]]

    assert vas() == [0, 0x2000, 0x3000]
    assert vas("--user") == [0x2000]
    assert vas("--kernel") == [0, 0x3000]
    assert vas("--has", "wx") == [0, 0x3000]
    assert vas("--lacks", "X") == [0x2000]
    assert vas("--pbmt", "nc") == [0x3000]
    assert vas("--size", "2M") == []
    assert vas("--range", "0x40001800-0x40002000") == [0x1800, 0x2000]


def test_find(cosim: Command, image: Path) -> None:
    words = ("find", "--ram", image, "--base", BASE, "--satp", SATP)
    _, out, _ = cosim(*words, hex(BASE + 0xA123), "0x1000")
    assert out.splitlines()[:4] == [
        "va 0x0000000040001123  4K  DA--XWRV  entry at 0x80003008",
        "va 0x0000000040002123  4K  DA-U--RV  entry at 0x80003010",
        "pa 0x8000a123 is mapped 2 times in Sv39, satp 0x8000000000080001",
        "not followed, for 0x40003000: entry 0x20000000200050cf at 0x80003018 (S, level 0): "
        "the memory type (PBMT) is reserved, or Svpbmt is off",
    ]
    assert "pa 0x1000 is mapped 0 times" in out
    _, out, _ = cosim(*words, "--json", hex(BASE + 0x9000))
    (document,) = json.loads(out)
    assert document["places"] == [
        {"va": 0x4000_0000, "perm": "DA--XWRV", "page_size": 4096, "entry_pa": TABLE}
    ]


def test_tables(cosim: Command, image: Path) -> None:
    words = ("maps", "--ram", image, "--base", BASE, "--satp", SATP, "--tables")
    _, out, _ = cosim(*words)
    assert out.splitlines()[3].split() == [
        "0x80003000",
        "S",
        "0",
        "0x0000000040000000",
        "0",
        "3",
        "0x80002000",
    ]
    _, out, _ = cosim(*words, "--json")
    assert [one["pa"] - BASE for one in json.loads(out)["tables"]] == [0x1000, 0x2000, 0x3000]


def test_a_dump_and_a_table_that_it_lacks(cosim: Command, image: Path, tmp_path: Path) -> None:
    data = image.read_bytes()
    pages = {BASE + at: data[at : at + 4096] for at in range(0, len(data), 4096)}
    core = tmp_path / "core"
    core.write_bytes(kdump(pages, "zstd"))
    _, out, _ = cosim("maps", "--core", core, "--satp", SATP)
    assert out.startswith(LINES)
    del pages[TABLE]
    core.write_bytes(kdump(pages, "zstd"))
    status, out, _ = cosim("maps", "--core", core, "--satp", SATP)
    assert status == 0
    assert "the table at 0x80003000 is outside of the memory that can be read" in out
    status, out, _ = cosim("walk", "--core", core, "--satp", SATP, 0x4000_0000)
    assert status == 0
    assert "why: the table at 0x80003000 cannot be read" in out


def test_a_trace_at_an_event(cosim: Command, trace: Path) -> None:
    def ranges(*options: object) -> list[tuple[int, int]]:
        _, out, _ = cosim("maps", "--trace", trace, "--json", *options)
        return [(one["va"] - 0x4000_0000, one["size"]) for one in json.loads(out)["ranges"]]

    assert ranges() == [(0x1000, 0x2000)]
    assert ranges("--at", 9) == [(0, 0x3000)]
    assert ranges("--at", 8) == [(0, 0x2000)]
    assert ranges("--at", 7, "--satp", SATP) == [(0, 0x2000)]
    # satp was Bare before event 7.
    assert [size for _, size in ranges("--at", 7)] == [1 << 56]
    _, out, _ = cosim("maps", "--trace", trace, "--since", 8)
    assert out.splitlines() == [
        "-  0x0000000040000000-0x0000000040000fff  pa 0x80009000  4 KiB  4K  DA--XWRV",
        "+  0x0000000040002000-0x0000000040002fff  pa 0x8000b000  4 KiB  4K  DA--XWRV",
        "Sv39, satp 0x8000000000080001: 2 changes",
    ]
    _, out, _ = cosim("maps", "--trace", trace, "--since", 8, "--json")
    assert [one["before"] is None for one in json.loads(out)["changes"]] == [False, True]
    _, out, _ = cosim("walk", "--trace", trace, "--at", 9, "--json", 0x4000_0010)
    assert json.loads(out)[0]["pa"] == BASE + 0x9010


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give one of --ram (with --base), --core and --trace"),
        (["--ram", "IMAGE"], "--ram and --base go together"),
        (["--core", "IMAGE"], "neither an ELF core nor a kdump file"),
        (["--ram", "IMAGE", "--base", "0x80000000"], "does not say which tables to use"),
        (["--ram", "IMAGE", "--base", "0x80000000", "--at", "1"], "--at and --hart are for"),
        (["--ram", "IMAGE", "--base", "0x80000000", "--since", "1"], "--since is for --trace"),
        (["--trace", "TRACE", "--at", "99"], "event 99 is not in the trace"),
        (["--trace", "TRACE", "--hart", "3"], "no hart 3"),
        (["--trace", "TRACE", "--hgatp", "0"], "no tables of virtual machines"),
        (["--trace", "IMAGE"], "is a file; a trace is the folder"),
        (["--trace", "TRACE", "--range", "5"], "is not a range"),
        (["--trace", "TRACE", "--range", "6-5"], "ends before it begins"),
        (["--trace", "TRACE", "--has", "Z"], "'Z' is not a permission"),
    ],
)
def test_usage_errors(
    cosim: Command, image: Path, trace: Path, words: list[str], reason: str
) -> None:
    paths = {"IMAGE": str(image), "TRACE": str(trace)}
    status, out, err = cosim("maps", *(paths.get(word, word) for word in words))
    assert (status, out) == (2, "")
    assert reason in err
    assert "Traceback" not in err


def test_find_takes_guest_physical_addresses_only_with_two_stages(
    cosim: Command, trace: Path
) -> None:
    status, _, err = cosim("find", "--trace", trace, "--gpa", 0)
    assert status == 2
    assert "--gpa is for two stages" in err
