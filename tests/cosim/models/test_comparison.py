"""Comparing the answers of a run: counts by party, findings in JSON and in words."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from cosim.kernel.symbols import Symbols
from cosim.models.comparison import Comparison
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending, has_finding
from cosim.report import from_result
from cosim.report.divergence import describe
from cosim.report.renderers import terminal
from hypervisor_model import policies
from hypervisor_model.errors import ModelError
from hypervisor_model.events import (
    FLAG_SUM,
    Access,
    EventBatch,
    Fence,
    Kind,
    Priv,
    empty,
    fault_pa,
)
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.policies import MachineModel
from tests.cosim.kernel.test_images import elf
from tests.cosim.streams import ENDING, ORIGIN

BASE = 0x8000_0000
ROOT, MIDDLE, LEAF, OLD, NEW = (BASE + 4096 * i for i in range(5))
RIGHTS = pte.V | pte.R | pte.W | pte.X | pte.A | pte.D
SATP = make(Mode.SV39, ROOT, 7)
VA = 0x1000
MACHINE = MachineModel(ram_size=1 << 20)


def event(kind: Kind, a: int = 0, b: int = 0, c: int = 0, **fields: int) -> EventBatch:
    one = empty(1)
    one["kind"], one["a"], one["b"], one["c"] = kind, a, b, c
    for name, value in fields.items():
        one[name] = value
    return one


def access(answer: int, **fields: int) -> EventBatch:
    """The reference's answer to a store to VA."""
    given = {"sub": Access.WRITE, "priv": Priv.S, "size": 8, "pc": 0x1234, "icount": 99, **fields}
    return event(Kind.ACCESS, VA, answer, **given)


def stream(*accesses: EventBatch) -> EventBatch:
    """VA is mapped to OLD, then to NEW, fenced; then it is accessed."""
    old, new = (frame >> 2 | RIGHTS for frame in (OLD, NEW))
    return np.concatenate(
        [
            event(Kind.SATP_WRITE, 0, SATP),
            event(Kind.TABLE_ADD, ROOT, 2, sub=1),
            event(Kind.TABLE_ENTRY, ROOT, 0, MIDDLE >> 2 | pte.V),
            event(Kind.TABLE_ADD, MIDDLE, 1),
            event(Kind.TABLE_ENTRY, MIDDLE, 0, LEAF >> 2 | pte.V),
            event(Kind.TABLE_ADD, LEAF, 0),
            event(Kind.TABLE_ENTRY, LEAF + 8, 0, old),
            access(OLD),
            event(Kind.PTE_WRITE, LEAF + 8, old, new, size=8),
            access(OLD),
            event(Kind.FENCE, VA, 7, sub=Fence.VA_ASID),
            *accesses,
        ]
    )


class Liar:
    """A policy that gets the stream's last access wrong."""

    def __init__(self, real: policies.Policy, lie: int) -> None:
        self.real = real
        self.lie = lie

    def feed(self, batch: EventBatch) -> NDArray[np.int64]:
        answers = self.real.feed(batch)
        answers[-1] = self.lie
        return answers

    @property
    def exits_taken(self) -> NDArray[np.int64]:
        return self.real.exits_taken

    @property
    def misses_taken(self) -> NDArray[np.int64]:
        return self.real.misses_taken

    def result(self) -> policies.PolicyResult:
        return self.real.result()


@pytest.fixture
def pipeline() -> Callable[[int], Pipeline]:
    def made(lie: int) -> Pipeline:
        native, real = (policies.make(name, ORIGIN.machine) for name in ("native", "nested"))
        return Pipeline(ORIGIN, {"native": native, "liar": Liar(real, lie)})  # type: ignore[dict-item]

    return made


def test_parties_are_counted_apart(pipeline: Callable[[int], Pipeline]) -> None:
    run = pipeline(OLD)
    run.feed(stream(access(NEW)))
    result = run.document(ENDING)
    assert result["translations"] == {
        "reference": {
            "compared": 3, "fresh": 2, "stale_legal": 1, "illegal": 0, "undecided": 0,
        },
        "native": {
            "compared": 3, "fresh": 2, "stale_legal": 1, "illegal": 0, "undecided": 0,
        },
        "liar": {
            "compared": 3, "fresh": 1, "stale_legal": 1, "illegal": 1, "undecided": 0,
        },
    }  # fmt: skip
    assert run.illegal == 1
    assert has_finding(result)


def test_a_sound_run_has_no_finding(pipeline: Callable[[int], Pipeline]) -> None:
    run = pipeline(NEW)
    run.feed(stream(access(NEW)))
    result = run.document(Ending(complete=True))
    assert result["illegal_translations"] == []
    assert run.illegal == 0
    assert not has_finding(result)


def test_a_finding_names_the_instruction(
    pipeline: Callable[[int], Pipeline], tmp_path: Path
) -> None:
    kernel = tmp_path / "kernel"
    load = (0x0007_3783).to_bytes(4, "little")
    kernel.write_bytes(elf(segments=[(1, 5, 0x1230, 0x8020_0000, b"\x01\0\x01\0" + load, 8)]))
    named = Symbols(np.array([0x1200], dtype=np.uint64), ["handle_mm_fault"], kernel)
    run = pipeline(OLD)
    run.symbols = lambda: named
    run.feed(stream(access(NEW)))
    (finding,) = run.document(ENDING)["illegal_translations"]
    assert (finding["symbol"], finding["instruction"]) == ("handle_mm_fault+0x34", "ld a5, 0(a4)")
    assert "pc 0x1234 (handle_mm_fault+0x34: ld a5, 0(a4)), hart 0" in describe(finding)


def test_a_finding_is_json_and_words(pipeline: Callable[[int], Pipeline]) -> None:
    run = pipeline(OLD)
    run.feed(stream(access(NEW, flags=FLAG_SUM)))
    (finding,) = json.loads(json.dumps(run.document(ENDING)["illegal_translations"]))
    old, new = (frame >> 2 | RIGHTS for frame in (OLD, NEW))
    upper = [
        {"level": 2, "address": ROOT, "entry": MIDDLE >> 2 | pte.V},
        {"level": 1, "address": MIDDLE, "entry": LEAF >> 2 | pte.V},
    ]
    assert finding == {
        "event": 11,
        "icount": 99,
        "hart": 0,
        "pc": 0x1234,
        "symbol": None,
        "instruction": None,
        "privilege": "S",
        "flags": ["SUM"],
        "access": "write",
        "va": VA,
        "size": 8,
        "satp": SATP & (1 << 64) - 1,
        "party": "liar",
        "answer": {"pa": OLD},
        "today": {"pa": NEW},
        "walk": [*upper, {"level": 0, "address": LEAF + 8, "entry": new}],
        "origin": [
            *({**step, "until": None} for step in upper),
            {"level": 0, "address": LEAF + 8, "entry": old, "until": 8},
        ],
    }
    assert describe(finding).splitlines() == [
        "illegal translation by liar (event 11, pc 0x1234, hart 0, 99 instructions in)",
        "  write 0x1000 as S SUM, satp 0x8000700000080000",
        "  the guest's tables say pa 0x80004000:",
        "    level 2  0x00000080000000  0x0000000020000401  -------V",
        "    level 1  0x00000080001000  0x0000000020000801  -------V",
        "    level 0  0x00000080002008  0x00000000200010cf  DA--XWRV",
        "  liar says pa 0x80003000, which these tables said once; a fence since has made that "
        "illegal:",
        "    level 2  0x00000080000000  0x0000000020000401  -------V",
        "    level 1  0x00000080001000  0x0000000020000801  -------V",
        "    level 0  0x00000080002008  0x0000000020000ccf  DA--XWRV  replaced by event 8",
    ]


def test_faults_and_what_never_was(pipeline: Callable[[int], Pipeline]) -> None:
    run = pipeline(0x1234_5000)
    run.feed(stream(access(fault_pa(15), icount=-1)))
    reference, liar = run.document(ENDING)["illegal_translations"]
    assert reference["party"] == "reference"
    assert reference["answer"] == {"cause": 15, "name": "store/AMO page fault"}
    assert reference["icount"] is None
    text = describe(reference)
    assert "reference says store/AMO page fault (15), which these tables never said" in text
    assert "instructions" not in text
    assert liar["answer"] == {"pa": 0x1234_5000}
    assert liar["origin"] == []


def test_findings_fit_the_screen_and_are_cut(pipeline: Callable[[int], Pipeline]) -> None:
    run = pipeline(NEW)
    run.feed(stream(*(access(OLD) for _ in range(25)), access(NEW)))
    result = run.document(ENDING)
    assert result["translations"]["reference"]["illegal"] == run.illegal == 25
    assert [finding["event"] for finding in result["illegal_translations"]] == [*range(11, 31)]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal.render(from_result.build(result)))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("illegal translation by reference") for line in lines) == 3
    assert "17 more of the first 20 are in --json" in lines


def test_a_stream_without_accesses_compares_nothing() -> None:
    comparison = Comparison(MACHINE, [])
    comparison.feed(stream()[[0, 1, 2]], {})
    assert comparison.counts() == {
        "reference": {"compared": 0, "fresh": 0, "stale_legal": 0, "illegal": 0, "undecided": 0}
    }


def test_events_must_fit_the_machine() -> None:
    comparison = Comparison(MACHINE, [])
    with pytest.raises(ModelError, match="hart 3, but the machine has 1"):
        comparison.feed(event(Kind.FENCE, hart=3), {})
