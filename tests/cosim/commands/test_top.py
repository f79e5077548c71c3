"""``cosim top`` over a trace and over a result, and the page's flame graphs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cosim import cli
from cosim.capture.processes import Process
from cosim.models.attribution import USER
from cosim.report import from_profile
from cosim.report.content import FlameGraph, Frame
from cosim.report.renderers import flame
from cosim.trace.writer import TraceWriter
from hypervisor_model.events import Fence, Kind, Priv, Satp, empty
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import signed
from tests.cosim.streams import ENDING, ORIGIN, result_document, write_trace

KERNEL = 0xFFFF_FFFF_8000_0000


def cosim(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in argv])
    output = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, output.out, output.err


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Thirty fences: 20, 6 and 3 at three places of the kernel, and one of a program."""
    batch = empty(30)
    batch["kind"], batch["priv"] = Kind.FENCE, Priv.S
    batch["icount"] = range(30)
    batch["pc"] = signed(KERNEL)
    batch["pc"][20:] += 4
    batch["pc"][26:] += 4
    batch["priv"][29] = Priv.U
    write_trace(tmp_path / "t", batch)
    return tmp_path / "t"


def test_a_trace_and_its_result_say_the_same(
    capsys: pytest.CaptureFixture[str], trace: Path, tmp_path: Path
) -> None:
    status, out, err = cosim(capsys, "top", trace, "--model", "shadow,lsp", "--json")
    assert (status, err) == (0, "")
    top = json.loads(out)
    assert top["format"] == "lsp-cosim-top" and top["guest"] == "synthetic"
    sites = [(row["address"], row["event"], row["exits"]["shadow"]) for row in top["sites"]]
    assert sites == [
        (KERNEL, "fence", 20),
        (KERNEL + 4, "fence", 6),
        (KERNEL + 8, "fence", 3),
        (None, "fence", 1),
    ]
    assert top["sites"][3]["site"] == top["functions"][3]["function"] == USER
    assert all(row["source"] is None for row in top["sites"])
    assert top["policies"]["shadow"]["exits"] == 30

    status, out, _ = cosim(capsys, "replay", trace, "--model", "shadow,lsp", "--json")
    (tmp_path / "result.json").write_text(out)
    _, out, _ = cosim(capsys, "top", tmp_path / "result.json", "--json")
    assert json.loads(out) == top
    _, out, _ = cosim(capsys, "top", tmp_path, "--json")
    assert json.loads(out) == top


def test_the_tables(capsys: pytest.CaptureFixture[str], trace: Path) -> None:
    words = ("top", trace, "--model", "shadow")
    status, out, err = cosim(capsys, *words)
    out = out.replace("\u00a0", " ")
    assert status == 0 and "no symbols" in err
    assert "VM exits by function" in out and "VM exits by call site" in out
    assert re.search(rf"{KERNEL:#x}, fence +20 \(66.7 %\)", out)
    assert re.search(r"no translation \(Bare\) +30 \(100.0 %\)", out)
    assert "TLB misses" not in out, "there were none"
    _, out, _ = cosim(capsys, *words, "--by", "function", "--rows", "1")
    out = out.replace("\u00a0", " ")
    assert re.search(r"all others +10 \(33.3 %\)", out) and "call site" not in out
    status, out, err = cosim(capsys, *words, "--count", "misses")
    assert (status, out) == (0, "") and "no policy had" in err


def test_address_spaces_have_the_names_of_their_processes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One root, which belongs to one process and then to another; the second's name is hostile."""
    batch = empty(9)
    batch["kind"], batch["priv"], batch["sub"] = Kind.FENCE, Priv.S, Fence.ALL
    batch["icount"] = range(9)
    batch["pc"] = signed(KERNEL)
    batch["kind"][[0, 4, 7]], batch["sub"][[0, 4, 7]] = Kind.SATP_WRITE, Satp.SATP
    batch["b"][[0, 4]], batch["b"][7] = signed(make(Mode.SV39, 0x8000_1000, 3)), 0
    batch["c"][[0, 4]] = 1, 2
    hostile = "\x1b]0;<b>\n"
    write_trace(tmp_path / "t", batch, processes={1: Process(45, "sh"), 2: Process(46, hostile)})
    _, out, _ = cosim(capsys, "top", tmp_path / "t", "--model", "shadow", "--json")
    spaces = [
        (row["process"], row["pid"], row["satp"], row["exits"]["shadow"])
        for row in json.loads(out)["spaces"]
    ]
    satp = make(Mode.SV39, 0x8000_1000, 3) % (1 << 64)
    # A write of satp happens in the address space that it leaves.
    assert sorted(spaces, key=str) == sorted(
        [("sh", 45, satp, 4), (hostile, 46, satp, 3), (None, None, 0, 2)], key=str
    )
    status, out, err = cosim(capsys, "top", tmp_path / "t", "--model", "shadow", "--by", "space")
    assert status == 0 and "names of processes" not in err
    shown = " ".join(out.split())
    assert "sh (pid 45), root 0x80001000, ASID 3" in shown
    assert "\\x1b]0;<b>\\n (pid 46), root 0x80001000" in shown and "\x1b]0" not in out


def test_why_there_are_no_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    batch = empty(2)
    batch["kind"], batch["priv"] = Kind.FENCE, Priv.S
    nameless = replace(ORIGIN, nameless="it is not Linux")
    for folder, origin in (("named", ORIGIN), ("nameless", nameless)):
        with TraceWriter(tmp_path / folder, origin) as writer:
            writer.write(batch)
            writer.close(ENDING)
    words = ("--model", "shadow", "--by")
    _, _, err = cosim(capsys, "top", tmp_path / "nameless", *words, "space")
    assert "address spaces have no names of processes: it is not Linux" in err
    for folder, group in (("nameless", "function"), ("named", "space")):
        _, _, err = cosim(capsys, "top", tmp_path / folder, *words, group)
        assert "names of processes" not in err


def test_what_has_no_causes_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trace: Path
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(result_document()))
    status, out, err = cosim(capsys, "top", old)
    assert (status, out, len(err.splitlines())) == (2, "", 1) and "run it again" in err
    (tmp_path / "other.json").write_text("[]")
    status, _, err = cosim(capsys, "top", tmp_path / "other.json")
    assert status == 2 and "is not a result" in err
    status, _, err = cosim(capsys, "top", old, "--model", "lsp")
    assert status == 2 and "--model needs a trace" in err


def causes() -> Any:
    """Two functions in two address spaces, and a rest."""
    rows = [
        ("root 0x1000, ASID 1", "f", "fence", 60, 0),
        ("root 0x1000, ASID 1", "f", "pte_write", 20, 0),
        ("root 0x1000, ASID 1", "<g>\x1b", "read", 0, 7),
        ("root 0x2000, ASID 2", "f", "fence", 15, 0),
        (None, None, None, 5, 1),
    ]
    return {
        "functions": [{"function": None, "exits": {"lsp": 100}, "misses": {"lsp": 8}}],
        "stacks": [
            {
                **dict(zip(("space", "function", "event"), names, strict=True)),
                "exits": {"lsp": exits},
                "misses": {"lsp": misses},
            }
            for *names, exits, misses in rows
        ],
    }


def test_a_flame_graph_is_a_tree_of_sums() -> None:
    graph = from_profile.flame_graph(causes(), "exits", "lsp")
    fence, store = Frame("fence", 60), Frame("table store", 20)
    assert graph.root == Frame(
        "lsp",
        100,
        (
            Frame("root 0x1000, ASID 1", 80, (Frame("f", 80, (fence, store)),)),
            Frame("root 0x2000, ASID 2", 15, (Frame("f", 15, (Frame("fence", 15),)),)),
            Frame("all others", 5),
        ),
    )


def test_the_drawing_has_each_frame_in_its_place() -> None:
    text = flame.svg(from_profile.flame_graph(causes(), "exits", "lsp"), "x")
    assert "<script" not in text and "href" not in text
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    boxes = {}
    for group in root.findall(f"{space}g"):
        box, title = group.find(f"{space}rect"), group.find(f"{space}title")
        assert box is not None and title is not None and title.text is not None
        place = tuple(float(box.attrib[name]) for name in ("x", "y", "width"))
        boxes[group.attrib["data-label"], int(group.attrib["data-value"])] = place
        assert f"{int(group.attrib['data-value']):,} VM exits" in title.text
    assert boxes["lsp", 100] == (0, 55, 719)
    assert boxes["root 0x1000, ASID 1", 80] == (0, 37, 575)
    assert boxes["root 0x2000, ASID 2", 15] == (576, 37, 107)
    assert boxes["all others", 5] == (684, 37, 35)
    assert boxes["table store", 20] == (432, 1, 143)
    shown = [text.text or "" for text in root.iter(f"{space}text")]
    # What does not fit is cut, or left to the title.
    assert {"root 0x2000, \u2026", "fence"} <= set(shown), shown


def test_names_from_outside_do_no_harm() -> None:
    text = flame.svg(from_profile.flame_graph(causes(), "misses", "lsp"), "x")
    assert "&lt;g&gt;\\x1b" in text and "<g>\x1b" not in text
    tiny = FlameGraph("c", "u", Frame("r", 10**6, (Frame("a", 10**6 - 1), Frame("b", 1))))
    assert 'data-label="b"' not in flame.svg(tiny, "x"), "too narrow to be seen"
