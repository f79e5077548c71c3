"""`cosim walk`: JSON and table, faults, live images, errors in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim import cli

BASE = 0x8000_0000
SATP = 8 << 60 | 0x80001
HGATP = 8 << 60 | 0x80004
VA = 0x4000_0123
FINE = 0xCF

Command = Callable[..., tuple[Any, str, str]]
"""Runs `cosim walk`: exit status, stdout and stderr."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """1 MiB of RAM: Sv39 at page 1, leaf table at page 3; Sv39x4 at page 4, identity in 1 GiB."""
    words = np.zeros((1 << 20) // 8, dtype=np.uint64)

    def put(pa: int, value: int) -> None:
        words[(pa - BASE) >> 3] = value

    put(BASE + 0x1000 + 8, (BASE + 0x2000) >> 2 | 1)
    put(BASE + 0x2000, (BASE + 0x3000) >> 2 | 1)
    put(BASE + 0x3000, (BASE + 0x9000) >> 2 | FINE)
    put(BASE + 0x3008, (BASE + 0xA000) >> 2 | 0x0F)
    put(BASE + 0x4000 + 8 * 2, BASE >> 2 | FINE | 0x10)
    path = tmp_path / "ram"
    path.write_bytes(words.tobytes())
    return path


@pytest.fixture
def walk(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["walk", *map(str, argv)])
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run


def answers(out: str) -> list[dict[str, Any]]:
    """Return the documents without the lists of references, which agree with their counts."""
    documents: list[dict[str, Any]] = json.loads(out)
    for document in documents:
        stages = [one["stage"] for one in document.pop("references")]
        assert {stage: stages.count(stage) for stage in document["refs"]} == document["refs"]
    return documents


def test_one_stage_as_json(walk: Command, image: Path) -> None:
    status, out, _ = walk(
        "--ram", image, "--base", hex(BASE), "--satp", hex(SATP), "--json", hex(VA), VA + 0x1000
    )
    assert status == 0
    assert answers(out) == [
        {
            "va": VA,
            "pa": BASE + 0x9123,
            "level": 0,
            "page_size": 4096,
            "perm": "DA--XWRV",
            "refs": {"S": 3},
        },
        {
            "va": VA + 0x1000,
            "cause": 13,
            "tval": VA + 0x1000,
            "why": "A is clear, and the machine leaves it to software (Svade)",
            "unreadable": None,
            "level": None,
            "page_size": None,
            "perm": None,
            "refs": {"S": 3},
        },
    ]


def test_two_stages_as_json(walk: Command, image: Path) -> None:
    arguments = ("--ram", image, "--base", BASE, "--vsatp", SATP, "--hgatp", HGATP, "--json")
    _, out, _ = walk(*arguments, VA)
    assert answers(out) == [
        {
            "va": VA,
            "pa": BASE + 0x9123,
            "level": 0,
            "page_size": 4096,
            "perm": "DA--XWRV",
            "g_level": 2,
            "g_perm": "DA-UXWRV",
            "refs": {"VS": 3, "G": 4},
        }
    ]
    _, out, _ = walk(*arguments[:-2], 8 << 60 | 0x80008, "--json", VA)
    assert answers(out) == [
        {
            "va": VA,
            "cause": 21,
            "tval": VA,
            "why": f"guest-physical {BASE + 0x1008:#x}, which holds a VS-stage table, is not "
            "accessible in the G-stage: V is clear: nothing is mapped",
            "unreadable": None,
            "gpa": BASE + 0x1008,
            "implicit": "read",
            "level": None,
            "page_size": None,
            "perm": None,
            "g_level": None,
            "g_perm": None,
            "refs": {"VS": 0, "G": 1},
        }
    ]


def test_the_g_stage_alone_as_json(walk: Command, image: Path) -> None:
    # Bits 0 and 1 of the root's PPN are zero in the register.
    arguments = ("--ram", image, "--base", BASE, "--vsatp", 0, "--hgatp", HGATP | 3, "--json")
    _, out, _ = walk(*arguments, BASE + 0x9123, "0xffffffffffffffff")
    inside, outside = answers(out)
    assert inside == {
        "va": BASE + 0x9123,
        "pa": BASE + 0x9123,
        "level": None,
        "page_size": 1 << 30,
        "perm": None,
        "g_level": 2,
        "g_perm": "DA-UXWRV",
        "refs": {"VS": 0, "G": 1},
    }
    assert (outside["cause"], outside["gpa"], outside["implicit"]) == (21, (1 << 64) - 1, None)


def test_svadu_counts_the_update_and_leaves_the_image_alone(walk: Command, image: Path) -> None:
    before = image.read_bytes()
    arguments = ("--ram", image, "--base", BASE, "--satp", SATP, "--svadu", "--access", "write")
    status, out, _ = walk(*arguments, "--json", VA + 0x1000)
    answer = json.loads(out)[0]
    assert (status, answer["pa"], answer["refs"]) == (0, BASE + 0xA123, {"S": 4})
    assert answer["perm"] == "DA--XWRV"
    assert image.read_bytes() == before


def test_options_reach_the_walk(walk: Command, image: Path) -> None:
    common = ("--ram", image, "--base", BASE, "--satp", SATP, "--json")

    def cause(*options: object) -> Any:
        return json.loads(walk(*common, *options, VA)[1])[0].get("cause")

    assert [cause(), cause("--priv", "U"), cause("--access", "fetch")] == [None, 13, None]
    data = np.fromfile(image, dtype=np.uint64)
    data[0x3000 >> 3] = (BASE + 0x9000) >> 2 | 0xD9  # X, U
    data.tofile(image)
    assert [cause(), cause("--sum"), cause("--sum", "--mxr")] == [13, 13, None]
    data[0x3000 >> 3] = (1 << 61) | (BASE + 0x9000) >> 2 | FINE
    data.tofile(image)
    assert [cause(), cause("--svpbmt")] == [13, None]


def test_the_table_shows_every_level(walk: Command, image: Path) -> None:
    status, out, err = walk("--ram", image, "--base", BASE, "--satp", SATP, VA, VA + 0x2000)
    assert (status, err) == (0, "")
    for text in (
        "0x00000080001008",
        "table at 0x80003000",
        "page at 0x80009000",
        "pa 0x00000080009123, page 4 KiB, DA--XWRV; references: 3",
        "cause 13, load page fault, tval 0x40002123; references: 3",
        "not valid",
        "why: V is clear: nothing is mapped",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 100
    _, out, _ = walk(
        "--ram", image, "--base", BASE, "--vsatp", SATP, "--hgatp", 8 << 60 | 0x80008, VA
    )
    assert "Sv39 on Sv39x4" in out
    assert "gpa 0x80001008 (implicit read of a VS-stage table); references: 0 VS-stage" in out
    _, out, _ = walk("--ram", image, "--base", BASE, "--vsatp", SATP, "--hgatp", HGATP, VA)
    assert "page 4 KiB, DA--XWRV on DA-UXWRV; references: 3 VS-stage, 4 G-stage" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--satp", "0", "--hgatp", "0", "1"], "either satp, or vsatp and hgatp"),
        (["--vsatp", "0", "1"], "either satp, or vsatp and hgatp"),
        (["1"], "does not say which tables to use: give either --satp"),
        (["--satp", "0x3000000000000000", "1"], "reserved MODE"),
        (["--satp", "many", "1"], "is not a number"),
        (["--satp", "0", "0x10000000000000000"], "does not fit 64 bits"),
        (["--satp", "0"], "VA..."),
    ],
)
def test_usage_errors(walk: Command, image: Path, arguments: list[object], reason: str) -> None:
    status, out, err = walk("--ram", image, "--base", BASE, *arguments)
    assert (status, out) == (2, "")
    assert reason in err


def test_images_that_cannot_be_used(walk: Command, image: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    hostile = [(tmp_path / name, BASE) for name in ("none", "fifo", "endless")]
    for ram, base in (*hostile, (image, BASE + 8)):
        status, _, err = walk("--ram", ram, "--base", base, "--satp", 0, 0)
        assert status == 2
        assert len(err.splitlines()) == 1
