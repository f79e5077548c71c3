"""The answer of a result, against values made by hand."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim import output
from cosim.models.derived import derive
from cosim.models.result import has_finding
from cosim.report import answer, from_result
from cosim.report.renderers import page, terminal
from hypervisor_model.costs import CostTable
from hypervisor_model.exits import Exit
from tests.cosim.streams import result_document

NO_ACCESSES = "needs accesses; the stream has none"


def policy(
    misses: int | None = None, refs: int | None = None, **kinds: int | None
) -> dict[str, Any]:
    """A policy's part of a result."""
    known = [n for n in kinds.values() if n is not None]
    whole = len(known) == len(kinds)
    reasons = {f"exits.{kind}": NO_ACCESSES for kind, n in kinds.items() if n is None}
    if misses is None:
        reasons |= {"tlb_misses": NO_ACCESSES, "walk_refs": NO_ACCESSES}
    return {
        "exits": {"total": sum(known) if whole else None, "at_least": sum(known), **kinds},
        "tlb_misses": misses,
        "walk_refs": None if refs is None else {"vs": refs, "g": 0},
        "reasons": reasons,
    }


def whole() -> Any:
    """The stock Linux guest's figures, of which the issue's text speaks."""
    result: Any = result_document()
    result["guest"]["name"] = "linux"
    result["region"] = {"from": "mark:init", "to": "power-off", "instructions": 52_000_000}
    result["policies"] = {
        "native": policy(1000, 2900),
        "nested": policy(1000, 11_960, gstage_fault=1207),
        "shadow": policy(1000, 2900, pt_write=900, shadow_fill=428),
        "lsp": policy(1000, 2900, fence_fast=500, shadow_fill=483),
    }
    result["derived"] = json.loads(json.dumps(derive(result["policies"])))
    return result


def shown(result: Any, width: int = 80, *, everything: bool = False) -> str:
    """What the terminal shows."""
    file = io.StringIO()
    report = terminal.render(from_result.build(result), everything=everything)
    output._Console(file=file, width=width).print(report)
    return file.getvalue().replace("\u00a0", " ")


def rows_of(text: str) -> dict[str, list[str]]:
    """The words of the table's rows, by the name of the row."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  ") and line.strip()]
    return {first: words for first, *words in lines}


def test_the_answer_comes_first_and_fits() -> None:
    text = shown(whole())
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert words.startswith(
        "linux, from mark:init to power-off: 52,000,000 instructions, 0 table stores, 0 fences and "
        "0 satp writes. Against the 1,328 exits of shadow, nested takes 9.1 % fewer and lsp "
        "26 % fewer. By the cost table `default` (1,000 cycles for an exit, 20 for a reference; "
        "assumed, not measured), lsp costs least: "
    )
    assert words.endswith("Checked: 9 translations compared, none illegal; 0 missed.")
    rows = rows_of(text)
    assert rows["native"][:3] == ["0", "1,000", "2.90"]
    assert rows["nested"][:5] == ["1,207", "9.1", "%", "fewer", "1,000"]
    assert rows["nested"][5] == "11.96"
    assert rows["shadow"][:3] == ["1,328", "1,000", "2.90"]
    assert rows["lsp"][:5] == ["983", "26", "%", "fewer", "1,000"]
    # All else is for those who ask.
    assert "pt_write" not in text
    assert "pt_write" in shown(whole(), everything=True)


def test_a_name_with_a_line_feed_stays_in_its_line() -> None:
    result = whole()
    result["guest"]["name"] = "new\nline.elf"
    result["region"]["to"] = "console:a\nb"
    assert shown(result, 120).startswith(r"new\nline.elf, from mark:init to console:a\nb: ")


def test_cycles_and_break_even_by_hand() -> None:
    policies = {
        "nested": policy(100, 1500),
        "lsp": policy(100, 300, shadow_fill=10),
        "native": policy(100, 300),
    }
    found = derive(policies, CostTable(reference=20, handling=dict.fromkeys(Exit, 0.0)))
    assert found["cycles"]["nested"] is not None and found["cycles"]["lsp"] is not None
    assert found["cycles"]["nested"]["total"] == 1500 * 20
    assert found["cycles"]["lsp"]["total"] == 300 * 20 + 10 * 1000
    assert found["break_even"] == [
        {"one": "lsp", "other": "nested", "exit_cost": 2400, "below": "lsp", "above": "nested"}
    ]
    assert found["references_per_miss"] == {"nested": 15, "lsp": 3, "native": 3}
    assert found["exits_vs_shadow"] == {}
    assert found["cost_table"]["name"] == "own"
    assert derive(policies)["cost_table"]["name"] == "default"


@given(
    *(st.tuples(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4)),) * 2,
)
def test_the_cheaper_policy_is_the_one_that_is_named(
    left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    policies = {
        name: policy(1, refs, shadow_fill=fills, fence_fast=fast)
        for name, (refs, fills, fast) in (("lsp", left), ("nested", right))
    }
    (pair,) = derive(policies)["break_even"]
    at = pair["exit_cost"]
    for cost, named in (
        (0 if at is None else at / 2, "below"),
        (1e6 if at is None else 2 * at + 1, "above"),
    ):
        table = CostTable(exit=cost)
        totals = {}
        for name, cycles in derive(policies, table)["cycles"].items():
            assert cycles is not None
            totals[name] = cycles["total"]
        cheaper = pair[named]  # type: ignore[literal-required]
        least = min(totals.values())
        if cheaper is not None:
            assert totals[cheaper] == pytest.approx(least)
        else:
            assert totals["lsp"] == pytest.approx(totals["nested"])


def test_a_run_without_accesses_has_no_column_of_dashes() -> None:
    result = whole()
    result["accesses"] = "none"
    result["stepped"] = {"instructions": 0, "share": 0.0}
    result["policies"] = {
        "native": policy(),
        "nested": policy(gstage_fault=None),
        "shadow": policy(pt_write=900, shadow_fill=None),
        "lsp": policy(fence_fast=237, shadow_fill=None),
    }
    del result["derived"]
    text = shown(result)
    words = " ".join(text.split())
    assert "nested 0 or more, shadow 900 or more and lsp 237 or more." in words
    assert f"- exits of shadow and lsp: shadow_fill not counted: {NO_ACCESSES}" in words
    assert f"- TLB misses and references: {NO_ACCESSES}" in words
    assert "- `--backend plugin` sees every access" in words
    rows = rows_of(text)
    assert rows["shadow"] == [">=", "900"]
    assert rows["native"] == ["0"]
    assert not any("-" in row for row in rows.values())


def test_what_is_unknown_for_one_policy_is_a_dash_and_what_does_not_apply_is_blank() -> None:
    result = whole()
    result["policies"]["nested"] = policy(gstage_fault=None)
    result["policies"]["vtlb"] = policy(1000, 2900, shadow_fill=10)
    result["derived"] = derive(result["policies"])
    text = shown(result)
    rows = rows_of(text)
    assert rows["nested"] == [">=", "0", "-", "-", "-", "-"]
    assert rows["native"][:2] == ["0", "1,000"]
    assert f"- TLB misses and references of nested: {NO_ACCESSES}" in " ".join(text.split())


def test_two_sources_that_agree() -> None:
    result = whole()
    agreement = {"events": 3456, "equal": 3456, "not_reached": 0, "difference": None}
    result["agreement"] = agreement
    words = " ".join(shown(result).split())
    assert "none illegal; 3,456 of 3,456 events equal in both sources; 0 missed." in words
    assert not has_finding(result)
    agreement |= {"equal": 3000, "not_reached": 456}
    assert "3,000 of 3,456 events equal in both sources (456 seen" in " ".join(
        shown(result).split()
    )


def test_two_sources_that_differ_are_shown_with_their_last_events() -> None:
    result = whole()
    difference = {
        "event": 1234,
        "gdb": "fence all",
        "plugin": None,
        "fields": ["kind"],
        "last_events": {"gdb": ["store one"], "plugin": ["store two"]},
    }
    result["agreement"] = {
        "events": 3456,
        "equal": 1234,
        "not_reached": 2222,
        "difference": difference,
    }
    text = shown(result)
    assert text.startswith("Warning: The sources differ at event 1,234.")
    for part in ("store one", "store two", "gdb: fence all", "plugin: nothing more"):
        assert part in text
    assert has_finding(result)


@pytest.mark.parametrize("illegal", [0, 2])
def test_findings_are_not_hidden(illegal: int) -> None:
    result: Any = result_document(illegal=illegal, missed_writes=3)
    result["audit"]["missed"] = [
        {"page": "0x1", "index": 2, "expected": "0x3", "found": "0x4", "last_events": []}
    ]
    words = " ".join(shown(result).split())
    assert "missed write: page 0x1, entry 2: 0x3 became 0x4" in words
    assert f"{illegal or 'none'} illegal; 3 missed writes." in words


def test_an_older_result_has_the_same_answer() -> None:
    result = whole()
    expected = shown(result)
    del result["derived"]
    assert shown(result) == expected


def test_equal_policies() -> None:
    result = whole()
    result["policies"]["lsp"] = result["policies"]["nested"] = policy(10, 30, shadow_fill=5)
    result["derived"] = derive(result["policies"])
    words = " ".join(shown(result).split())
    assert "nested and lsp cost least" in words
    assert "lsp and nested cost the same, whatever an exit costs." in words


def test_the_page_has_the_same_on_top() -> None:
    text = page.render(from_result.build(whole()))
    top = text[: text.index("<section")]
    assert "Against the 1,328 exits of shadow" in top
    assert "Checked: 9 translations compared" in top
    assert '<td data-value="1207">1,207</td>' in top


def test_a_list_of_runs_has_the_answer_in_one_sentence() -> None:
    assert answer.headline(whole()).startswith("Against the 1,328 exits of shadow")
    assert answer.headline(result_document()) == (
        "Checked: 9 translations compared, none illegal; 0 missed."
    )


def causes() -> Any:
    """What caused the exits and misses, with names that mean harm."""
    counts = {
        "exits": {"native": 0, "nested": 0, "shadow": 300, "lsp": 7},
        "misses": {"native": 10, "nested": 40, "lsp": 1},
    }
    rest = {"exits": {"native": 0, "nested": 12, "shadow": 0, "lsp": 193}, "misses": {"lsp": 3}}
    rest["misses"] = {"native": 0, "nested": 0, "lsp": 3}
    site = {"site": "\x00<i>+0x4", "address": 4, "event": "pte_write"}
    space = {"space": "root 0x80001000, ASID 7", "satp": 1 << 63, "user": False}
    return {
        "functions": [{"function": "\x00<i>", **counts}, {"function": None, **rest}],
        "sites": [{**site, **counts}, {**dict.fromkeys(site), **rest}],
        "spaces": [{**space, **counts}, {**dict.fromkeys(space), **rest}],
        "stacks": [
            {"space": space["space"], "function": "\x00<i>", "event": "pte_write", **counts},
            {"space": None, "function": None, "event": None, **rest},
        ],
    }


def profiled() -> Any:
    """A result whose exits have times and places, with labels and names that mean harm."""
    result = whole()
    exits = {"native": [0] * 100, "nested": [12] + [0] * 99, "shadow": [3] * 100, "lsp": [2] * 100}
    marks = [{"at": 0, "label": "init"}, {"at": 3200, "label": "\x1b[/x]<b>"}]
    result["profile"] = {
        "over_time": {"window": 64, "exits": exits, "marks": marks},
        "causes": causes(),
        "reasons": {"functions": "no symbols"},
    }
    return result


def test_the_page_shows_when_and_where_policies_exit() -> None:
    text = page.render(from_result.build(profiled()))
    section = text[text.index('<section id="time"') : text.index('<section id="exits"')]
    # Drawn for wide and for narrow columns.
    assert section.count('class="place"') == 4
    assert 'data-label="init" data-x="0"' in section
    assert "\\x1b[/x]&lt;b&gt;" in section and "\x1b" not in section and "<b>" not in section
    # 100 windows in 25 points of four, and no curve of what cannot exit.
    assert "VM exits in each 256 instructions" in section
    assert (
        '<td data-value="12">12</td><td data-value="12">12</td><td data-value="8">8</td>' in section
    )
    assert 'data-series="native"' not in section
    functions = section[section.index('<section id="functions"') :]
    assert "\\x00&lt;i&gt;" in functions and "\x00" not in functions
    assert '<td data-value="300">300</td><td data-value="7">7</td>' in functions
    assert "all other functions" in functions and "no symbols" in functions


def test_the_terminal_leaves_out_what_only_a_drawing_shows() -> None:
    text = shown(profiled(), everything=True)
    assert "over the guest's time" not in text
    assert text.count("pt_write") == 1


def test_a_source_without_times_says_so() -> None:
    result = profiled()
    result["profile"]["over_time"] = None
    result["profile"]["reasons"] = {"over_time": "not said", "lsp": "not counted"}
    text = page.render(from_result.build(result))
    assert "<li>not said</li>" in text and "<li>lsp: not counted</li>" in text
