"""`cosim trace` and `cosim query`: output, exit status, errors in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosim import cli
from cosim.trace.manifest import NAME
from cosim.trace.writer import TraceWriter
from guest.spec import checksum
from hypervisor_model.events import (
    FLAG_CONT,
    Access,
    EventBatch,
    Fence,
    Kind,
    PteOp,
    Satp,
    empty,
    fault_pa,
)
from hypervisor_model.jit import signed
from hypervisor_model.policies import Stream
from tests.cosim.kernel.test_images import elf
from tests.cosim.streams import ENDING, ORIGIN, write_trace

PC = 0xFFFFFFFF80001234
HIGH = 0xFFFFFFD600001000
SATP = 0x8000_1000_0008_2000


def one_of_each() -> EventBatch:
    batch = empty(8)
    batch["icount"] = np.arange(100, 108)
    batch["pc"] = signed(PC)
    batch["priv"] = 1
    values = [
        (Kind.TABLE_ADD, 0x82000000, 2, 0, 1, 0, 0),
        (Kind.PTE_WRITE, 0x82000008, 0, signed((1 << 63) | 0x21), PteOp.AMO, FLAG_CONT, 8),
        (Kind.FENCE, signed(HIGH), 7, 0, Fence.SINVAL_VMA | Fence.VA_ASID, 0, 0),
        (Kind.FENCE, 0, 0, 0, Fence.SFENCE_VMA | Fence.ALL, 0, 0),
        (Kind.SATP_WRITE, 0, signed(SATP), 0, Satp.SATP, 0, 0),
        (Kind.ACCESS, signed(HIGH), 0x82345678, 0, Access.WRITE, 0, 8),
        (Kind.ACCESS, signed(HIGH), fault_pa(13), 0, Access.READ, 0, 8),
        (Kind.MARK, 3, 0, 0, 0, 0, 0),
    ]
    for index, (kind, a, b, c, sub, flags, size) in enumerate(values):
        for name, value in zip(
            ("kind", "a", "b", "c", "sub", "flags", "size"),
            (kind, a, b, c, sub, flags, size),
            strict=True,
        ):
            batch[name][index] = value
    return batch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_trace(tmp_path / "t", one_of_each(), segment_events=3)
    return tmp_path / "t"


class Shell:
    """Runs `cosim` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in argv])
        output = self._capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, output.out, output.err

    def json(self, *argv: str | Path) -> Any:
        status, out, _ = self(*argv, "--json")
        assert status == 0
        return json.loads(out)


@pytest.fixture
def cosim(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_views_name_what_they_hold(cosim: Shell, folder: Path) -> None:
    def rows(sql: str) -> list[list[Any]]:
        answer: list[list[Any]] = cosim.json("query", folder, sql)["rows"]
        return answer

    assert rows("SELECT pa, old, new, op, size, continued FROM pte_writes") == [
        [0x82000008, 0, (1 << 63) | 0x21, "amo", 8, True]
    ]
    assert rows("SELECT instruction, va, asid FROM fences ORDER BY event") == [
        ["sinval.vma", HIGH, 7],
        ["sfence.vma", None, None],
    ]
    assert rows("SELECT register, old, new FROM satp_writes") == [["satp", 0, SATP]]
    assert rows("SELECT access, va, pa, cause FROM accesses ORDER BY event") == [
        ["write", HIGH, 0x82345678, None],
        ["read", HIGH, None, 13],
    ]
    assert rows("SELECT number, label FROM marks") == [[3, "mark 3"]]
    assert rows("SELECT pa, level, root FROM table_adds") == [[0x82000000, 2, True]]
    assert rows("SELECT event, icount, pc FROM events WHERE kind = 'mark'") == [[7, 107, PC]]


def test_head_names_the_instruction(cosim: Shell, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    store = (0x00F7_3023).to_bytes(4, "little")
    kernel.write_bytes(elf(segments=[(1, 5, PC, 0x8020_0000, store, 4)]))
    guest = {**ORIGIN.guest, "kernel": str(kernel), "sha256": {"kernel": checksum(kernel)}}
    batch = one_of_each()
    batch["priv"][5] = 0
    with TraceWriter(tmp_path / "t", replace(ORIGIN, guest=guest)) as writer:
        writer.write(batch)
        writer.close(ENDING)
    shown = [event["instruction"] for event in cosim.json("trace", "head", tmp_path / "t")]
    assert shown == [None if index == 5 else "sd a5, 0(a4)" for index in range(8)]
    status, out, _ = cosim("trace", "head", tmp_path / "t")
    assert status == 0 and out.count("sd a5, 0(a4)") == 7
    # Of another kernel nothing is said.
    kernel.write_bytes(kernel.read_bytes() + b"x")
    assert "sd a5" not in cosim("trace", "head", tmp_path / "t")[1]


def test_query_table_and_limit(cosim: Shell, folder: Path) -> None:
    status, out, err = cosim("query", folder, "SELECT pc FROM events", "--limit", "2")
    assert status == 0
    assert out.count("0xffffffff80001234") == 2
    assert "more than 2 rows" in err


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM nowhere",
        "SELEC",
        "",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY events TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM folder",  # A name in our Python, not in the trace.
        "SELECT CAST('x' AS INTEGER)",
        # What EXPLAIN ANALYZE explains is executed, be it only in memory.
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
        "EXPLAIN ANALYZE DROP VIEW fences",
        "EXPLAIN (ANALYZE) CREATE VIEW x AS SELECT 1",
        "SELECT 0x1ffffffffffffffff",
    ],
)
def test_a_query_reads_the_trace_and_nothing_else(cosim: Shell, folder: Path, sql: str) -> None:
    status, out, err = cosim("query", folder, sql)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_hexadecimal_literals_have_64_bits(cosim: Shell, folder: Path) -> None:
    def row(sql: str) -> list[Any]:
        answer: list[Any] = cosim.json("query", folder, sql)["rows"][0]
        return answer

    assert row(f"SELECT count(*) FROM accesses WHERE va = {HIGH:#x}") == [2]
    assert row(f"SELECT va & 0xFF00000000000000, va - {HIGH:#x} FROM accesses LIMIT 1") == [
        HIGH & 0xFF << 56,
        0,
    ]
    assert row('SELECT 0xff, \'é 0xff\', "0xff" FROM (SELECT 1 AS "0xff") -- 0xff') == [
        255,
        "é 0xff",
        1,
    ]
    status, _, err = cosim("query", folder, "SELECT 0x1ffffffffffffffff")
    assert status == 2 and "0x1ffffffffffffffff has more than 64 bits" in err


def test_a_query_refuses_a_damaged_segment(cosim: Shell, folder: Path) -> None:
    path = folder / "events-000001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    status, out, err = cosim("query", folder, "SELECT count(*) FROM events")
    assert (status, out) == (2, "")
    assert "events-000001.parquet: this segment is damaged" in err
    status, out, _ = cosim("trace", "verify", folder, "--json")
    assert status == 1
    assert len(json.loads(out)["findings"]) == 1


def test_info(cosim: Shell, folder: Path) -> None:
    document = cosim.json("trace", "info", folder)
    assert document["events"] == 8
    assert document["segments"] == 3
    assert document["complete"] is True
    assert document["kinds"]["fence"] == 2
    assert document["labels"] == {"3": "mark 3"}
    assert document["origin"]["guest"]["name"] == "synthetic"
    assert document["bytes"] == sum(p.stat().st_size for p in folder.glob("*.parquet"))
    status, out, _ = cosim("trace", "info", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    rows = dict(line.strip().split(maxsplit=1) for line in out.splitlines())
    assert rows["backend"] == "plugin, accesses all"


def test_info_shows_what_was_captured(cosim: Shell, tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    made_of = {
        **ORIGIN.guest,
        "sha256": {"kernel": digest, "initrd": None},
        "arguments": ["qemu", "-append", "a b"],
    }
    origin = replace(ORIGIN, guest=made_of, stream=Stream(filter=16))
    with TraceWriter(tmp_path / "t", origin) as writer:
        writer.close(ENDING)
    assert cosim.json("trace", "info", tmp_path / "t")["origin"] == json.loads(
        json.dumps(origin.to_json())
    )
    text = " ".join(cosim("trace", "info", tmp_path / "t")[1].split())
    assert "plugin, accesses all, through a filter of 16 slots" in text
    assert f"guest sha256 kernel {digest}" in text
    assert "guest arguments qemu -append 'a b'" in text


def test_head(cosim: Shell, folder: Path) -> None:
    document = cosim.json("trace", "head", folder, "--kind", "fence", "--kind", "mark", "-n", "2")
    assert [event["event"] for event in document] == [2, 3]
    assert document[0]["a"] == HIGH
    status, out, _ = cosim("trace", "head", folder)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    text = " ".join(out.split())
    for part in (
        "0x82000008: 0x0 -> 0x8000000000000021 amo 8 B continued",
        "sinval.vma va 0xffffffd600001000 asid 7",
        "read 0xffffffd600001000 -> fault 13",
        "satp 0x0 -> 0x8000100000082000",
        "mark 3 (3)",
    ):
        assert part in text


def test_verify(cosim: Shell, folder: Path) -> None:
    assert cosim.json("trace", "verify", folder) == {"ok": True, "findings": []}
    (folder / ".events-000009.parquet.123.part").write_bytes(b"x")
    lines = (folder / NAME).read_bytes().splitlines(keepends=True)
    (folder / NAME).write_bytes(b"".join(lines[:-1]))
    status, out, _ = cosim("trace", "verify", folder)
    assert status == 1
    assert "left over from an interrupted writer" in out
    assert "the trace is cut: it has no end record" in out
    status, out, _ = cosim("trace", "verify", folder / "nowhere")
    assert (status, out) == (2, "")


HOSTILE = "[/~] # \x1b]0;t\x07"
SHOWN = "[/~] # \\x1b]0;t\\x07"


def test_text_of_a_trace_is_shown_and_never_parsed(tmp_path: Path, cosim: Shell) -> None:
    """What a label, an origin, an ending, a path or a query says is no markup and no escape."""
    folder = tmp_path / "[/x]\x1b"
    region = {"from": f"console:{HOSTILE}", "to": HOSTILE}
    origin = replace(ORIGIN, guest={**ORIGIN.guest, "name": HOSTILE}, region=region)
    with TraceWriter(folder, origin) as writer:
        writer.label(3, HOSTILE)
        writer.write(one_of_each())
        writer.close(replace(ENDING, complete=False, reason=HOSTILE))
    for words in (
        ("trace", "info", folder),
        ("trace", "head", folder),
        ("trace", "verify", folder),
        ("replay", folder),
        ("replay", folder, "--model", "native"),
        ("query", folder, f"SELECT '{HOSTILE}' AS \"{HOSTILE}\""),
        ("query", folder, f'SELECT 1 FROM "{HOSTILE}"'),
        ("report", folder, "-o", tmp_path / "r.html"),
    ):
        _, out, err = cosim(*words)
        assert "\x1b" not in out + err, words
        assert "Traceback" not in err, words
        if words[0] != "report":
            assert SHOWN in out + err, words
    status, out, _ = cosim("query", folder, "SELECT '[/x]'")
    assert (status, out.split()) == (0, ["'[/x]'", "[/x]"])
