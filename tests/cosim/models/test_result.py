"""Counting events, the result document, and its table."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cosim.models.counts import EventCounter
from cosim.models.result import Ending, Origin, document, has_finding
from cosim.report import from_result
from cosim.report.renderers import terminal
from hypervisor_model.events import (
    FLAG_CONT,
    FLAG_STOP,
    Envcfg,
    EventBatch,
    Fence,
    Kind,
    Priv,
    PteOp,
    Satp,
    empty,
)
from hypervisor_model.policies import MachineModel, Stream
from tests.cosim.streams import ORIGIN, batches, result_document

SAMPLED = (Kind.ACCESS, Kind.SATP_WRITE, Kind.ENVCFG_WRITE)


@given(st.lists(batches, max_size=4))
def test_counts_are_those_of_counting_by_hand(parts: list[EventBatch]) -> None:
    counter = EventCounter(harts=2)
    expected: dict[str, Any] = dict.fromkeys(
        [
            "total",
            "pte_write_continued",
            "hardware_ad_updates",
            "sample",
            *(kind.name.lower() for kind in Kind),
        ],
        0,
    )
    expected["fence"] = {"va": 0, "va_asid": 0, "asid": 0, "all": 0}
    expected["virtual"] = {"fence": 0, "satp_write": 0, "access": 0, "page_fault": 0}
    forms = {Fence.ALL: "all", Fence.VA: "va", Fence.ASID: "asid", Fence.VA_ASID: "va_asid"}
    for part in parts:
        counter.feed(part)
        for event in part:
            kind = Kind(int(event["kind"]))
            expected["total"] += 1
            key = kind.name.lower()
            if key in expected["virtual"] and (
                event["priv"] & Priv.VIRT
                or (kind == Kind.FENCE and event["sub"] >= Fence.HFENCE_VVMA)
                or (kind == Kind.SATP_WRITE and event["sub"] != Satp.SATP)
            ):
                expected["virtual"][key] += 1
                continue
            if kind == Kind.ENVCFG_WRITE and event["sub"] != Envcfg.MENVCFG:
                continue
            if kind == Kind.FENCE_ORDER and event["priv"] & Priv.VIRT:
                continue
            if kind == Kind.REMOTE_FENCE and (
                event["priv"] & Priv.VIRT or event["sub"] >= Fence.HFENCE_VVMA
            ):
                continue
            if kind == Kind.FENCE:
                expected["fence"][forms[Fence(int(event["sub"]) & 3)]] += 1
            elif kind == Kind.PTE_WRITE and event["sub"] == PteOp.HARDWARE_AD:
                expected["hardware_ad_updates"] += 1
            elif kind in SAMPLED and event["flags"] & FLAG_STOP:
                expected["sample"] += 1
            else:
                expected[key] += 1
            if kind == Kind.PTE_WRITE and event["flags"] & FLAG_CONT:
                expected["pte_write_continued"] += 1
    assert counter.counts() == expected


def test_a_missed_write_is_shown_with_what_came_before() -> None:
    result = result_document()
    missed = {
        "page": "0x80001000",
        "index": 7,
        "expected": "0x0",
        "found": "0x20000401",
        "last_events": ["a", "sfence.vma at 0x80200000", "sd a0, 0(a1) to 0x80001000", "ret"],
    }
    result["audit"] = {
        "checks": 3,
        "missed_writes": 1,
        "hardware_ad_updates": 0,
        "missed": [missed],
    }
    console = Console(file=io.StringIO(), width=100)
    console.print(terminal.render(from_result.build(result)))
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "missed write: page 0x80001000, entry 7: 0x0 became 0x20000401" in text
    assert "last events: sfence.vma at 0x80200000; sd a0, 0(a1) to 0x80001000; ret" in text


# No key is the name of a count, such as "stops", which cannot have any value.
words = st.dictionaries(
    st.text(max_size=5).map("a {}".format), st.text(max_size=5) | st.integers(), max_size=3
)


@given(words, words, st.sampled_from(["all", "partial", "none"]), st.booleans())
def test_what_a_source_says_survives_json(
    guest: dict[str, Any], region: dict[str, Any], accesses: Any, flag: bool
) -> None:
    machine = MachineModel(ram_size=1 << 24, svadu=flag)
    stream = Stream(accesses, page_faults=flag)
    origin = Origin(guest, "gdb", region, stream, machine, virtual_machines=flag)
    assert Origin.from_json(json.loads(json.dumps(origin.to_json()))) == origin
    ending = Ending(flag, None if flag else "why", region, None if flag else guest, guest)
    assert Ending.from_json(json.loads(json.dumps(ending.to_json()))) == ending


@pytest.mark.parametrize(
    "change",
    [
        {"guest": None},
        {"backend": 3},
        {"stream": {"accesses": "some", "page_faults": True}},
        {"stream": {"accesses": "all"}},
        {"machine": []},
    ],
)
def test_what_is_no_origin_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        Origin.from_json({**ORIGIN.to_json(), **change})


@pytest.mark.parametrize(
    ("illegal", "missed", "finding"), [(0, 0, False), (1, 0, True), (0, 1, True)]
)
def test_findings(illegal: int, missed: int, finding: bool) -> None:
    assert has_finding(result_document(illegal=illegal, missed_writes=missed)) is finding


@pytest.mark.parametrize("count", ["missed_satp_writes", "late_sites"])
def test_what_was_missed_besides_stores_is_a_finding_and_in_the_table(count: str) -> None:
    result = result_document()
    assert "0 missed." in _text(result)
    assert f"0 {count.replace('_', ' ')}" in _text(result, everything=True)
    assert result["audit"] is not None
    result["audit"][count] = 3
    assert has_finding(result)
    assert f"3 {count.replace('_', ' ')}" in _text(result)


def test_no_audit_is_no_finding() -> None:
    counts = EventCounter().counts()
    assert not has_finding(document(ORIGIN, Ending.incomplete("x"), counts, {}, {}))


@pytest.mark.parametrize(
    ("written", "name", "all_seen"), [("mi", "gdb", False), ("plugin", "plugin", True)]
)
def test_the_origin_in_an_older_trace(written: str, name: str, all_seen: bool) -> None:
    """It has the older name of gdb, and does not say what is seen of virtual machines."""
    older = {**ORIGIN.to_json(), "backend": written}
    del older["virtual_machines"]
    origin = Origin.from_json(older)
    assert (origin.backend, origin.virtual_machines) == (name, all_seen)


@pytest.mark.parametrize("all_seen", [True, False])
def test_virtual_machines_are_counted_apart_with_the_reason(all_seen: bool) -> None:
    batch = empty(2)
    batch["kind"], batch["priv"] = Kind.ACCESS, Priv.S | Priv.VIRT
    counter = EventCounter()
    counter.feed(batch)
    origin = replace(ORIGIN, virtual_machines=all_seen)
    result = document(origin, Ending(complete=True), counter.counts(), {}, {})
    events = result["events"]
    assert (events["total"], events["access"], events["sample"]) == (2, 0, 0)
    assert "V=1" in events["reasons"]["virtual"]
    seen = {"fence": 0, "satp_write": 0, "access": 2, "page_fault": 0}
    assert events["virtual"] == (seen if all_seen else None)
    assert "no comparison" in _text(result)


def _policy(null: bool) -> dict[str, Any]:
    kinds = {"pt_write": 12_345_678, "shadow_fill": None if null else 1_234_567_890}
    return {
        "exits": {"total": None if null else 99, "at_least": 12_345_678, **kinds},
        "tlb_misses": None if null else 7,
        "walk_refs": None if null else {"vs": 10**12, "g": 0},
        "shadow_pages_peak": 3,
        "reasons": {"exits.shadow_fill": "needs every access"} if null else {},
    }


def _text(result: Any, width: int = 100, *, everything: bool = False) -> str:
    file = io.StringIO()
    report = terminal.render(from_result.build(result), everything=everything)
    Console(file=file, width=width).print(report)
    return file.getvalue()


def test_the_table_fits_and_says_what_is_not_known() -> None:
    names = ["native", "nested", "shadow", "lsp", "vtlb", "unsync", "oos", "ssp"]
    result = result_document(illegal=1)
    result["policies"] = {name: _policy(name in ("shadow", "vtlb")) for name in names}
    text = _text(result, everything=True)
    assert max(map(len, text.splitlines())) <= 100
    for name in names:
        assert name in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}
    assert rows["pt_write"] == ["12,345,678"] * 4  # The last table: vtlb, unsync, oos, ssp.
    assert ">= 12,345,678" in text
    assert "- shadow_fill: needs every access" in text
    assert rows["reference"] == ["9", "8", "0", "1", "0"]


def test_no_number_is_broken_on_a_narrow_terminal() -> None:
    names = ["nested", "shadow", "lsp", "shadow:roots=4,oos=1"]
    result = result_document()
    result["policies"] = {name: _policy(null=False) for name in names}
    for width in (60, 80):
        text = _text(result, width, everything=True)
        assert max(map(len, text.splitlines())) <= width
        assert text.count("1,234,567,890") == text.count("1,000,000,000,000") == len(names)
        assert all(name in text for name in names)


def test_the_table_says_that_a_run_is_incomplete() -> None:
    result = document(
        ORIGIN, Ending.incomplete("the disk was full"), EventCounter().counts(), {}, {}
    )
    text = _text(result)
    assert "the disk was full" in text
    assert "no audit looked for missed writes" in text


def test_the_table_says_how_much_was_stepped() -> None:
    ending = Ending(complete=True, stepped={"instructions": 5000, "share": 0.25})
    text = _text(document(ORIGIN, ending, EventCounter().counts(), {}, {}), everything=True)
    assert "5,000 instructions stepped (25.00\u00a0% of the region)" in text
