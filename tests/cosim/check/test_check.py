"""Verdicts, suppressions and forms of output, on streams written by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from cosim.check import exchange, suppress, text
from cosim.check.document import KINDS, build
from cosim.check.verdict import judge
from cosim.cli import cosim
from cosim.commands import check, debug
from cosim.errors import UsageError
from cosim.kernel.places import Frame, Places
from cosim.models.result import Ending, Origin
from hypervisor_model.events import Access
from hypervisor_model.fences import FenceChecker, Finding
from hypervisor_model.policies import MachineModel, Stream
from tests.hypervisor_model.guests import KERNEL, PAGE, G, Guest, leaf
from tests.hypervisor_model.test_fences import NEW, OLD, SIZE, VA, started, svinval, used

MACHINE = MachineModel(ram_size=SIZE)
ORIGIN = Origin(
    guest={"name": "hand-made", "kernel": "/nowhere"},
    backend="plugin",
    region={"from": "boot", "to": "power-off"},
    stream=Stream(filter=1),
    machine=MACHINE,
)


def checker_of(guest: Guest, harts: int = 1, *, svpbmt: bool = False) -> FenceChecker:
    batch = guest.batch()
    batch["pc"] = 0x1000 + 4 * np.arange(len(batch))
    batch["icount"] = 10 * np.arange(len(batch))
    checker = FenceChecker(MachineModel(ram_size=SIZE, harts=harts, svpbmt=svpbmt))
    checker.feed(batch)
    return checker


def only(guest: Guest, harts: int = 1) -> Finding:
    (finding,) = checker_of(guest, harts).findings
    return finding


def document(
    guest: Guest,
    *known: suppress.Suppression,
    chain: Sequence[Frame] | str = "a test has none",
) -> dict[str, Any]:
    checker = checker_of(guest)
    chains = {finding.culprit.event: chain for finding in checker.findings}
    return build(checker, ORIGIN, Ending(complete=True), Places(None), known, chains)


def moved() -> Guest:
    guest, entry = started()
    used(guest)
    guest.access(VA)
    guest.store(entry, leaf(NEW))
    return guest


@pytest.mark.parametrize(
    ("old", "new", "severity", "effect"),
    [
        (0, 1, "error", "the access could go to 0x82000000 as PMA memory instead of NC"),
        (2, 1, "warning", "the access could go to 0x82000000 as IO memory instead of NC"),
    ],
)
def test_a_changed_memory_type_is_graded_by_what_it_can_cost(
    old: int, new: int, severity: str, effect: str
) -> None:
    guest, entry = started()
    guest.store(entry, leaf(OLD) | old << 61)
    used(guest)
    guest.store(entry, leaf(OLD) | new << 61)
    guest.access(VA)
    checker = checker_of(guest, svpbmt=True)
    found = build(checker, ORIGIN, Ending(complete=True), Places(None), (), {})
    (row,) = found["findings"]
    assert (row["kind"], row["severity"], row["effect"]) == (
        "memory-type-changed",
        severity,
        effect,
    )
    assert row["access"]["stale"]["pbmt"] == ("pma", "nc", "io")[old]


@pytest.mark.parametrize(
    "va, asid, name",
    [(VA + PAGE, None, "wrong-address"), (VA, 2, "wrong-asid"), (None, 2, "wrong-asid")],
)
def test_a_fence_that_is_too_narrow_is_named(va: int | None, asid: int | None, name: str) -> None:
    guest = moved()
    guest.fence(va, asid)
    fence = len(guest.events) - 1
    guest.access(VA)
    guest.fence()
    verdict = judge(only(guest))
    assert verdict.name == name
    assert verdict.fence is not None and verdict.fence.event == fence


def test_a_fence_that_comes_late_or_never_is_named() -> None:
    guest = moved()
    guest.access(VA)
    assert judge(only(guest)).name == "never"
    guest.fence(VA)
    assert judge(only(guest)).name == "late"


def test_a_fence_with_an_asid_spares_a_global_page() -> None:
    guest, entry = started()
    guest.store(entry, leaf(OLD, KERNEL | G))
    guest.fence()
    guest.store(entry, leaf(NEW, KERNEL | G))
    guest.fence(VA, 1)
    guest.access(VA)
    assert judge(only(guest)).name == "spares-global"


def test_a_fence_of_another_hart_is_named() -> None:
    guest, entry = started(harts=2)
    guest.fence(hart=0)
    guest.fence(hart=1)
    guest.store(entry, leaf(NEW))
    guest.fence(VA, hart=1)
    guest.access(VA)
    assert judge(only(guest, harts=2)).name == "other-hart"


@pytest.mark.parametrize(
    ("steps", "name"),
    [("sira", "no-w-inval"), ("wsira", "no-w-inval"), ("swia", "no-inval-ir")],
)
def test_svinval_out_of_order_is_the_kind_order(steps: str, name: str) -> None:
    guest, entry = started()
    used(guest)
    svinval(guest, steps, entry)
    (row,) = document(guest)["findings"]
    assert (row["kind"], row["fence"]["verdict"]) == ("order", name)
    assert row["fence"]["executed"]["instruction"] == "sinval.vma"


@pytest.mark.parametrize("ordered", [True, False])
def test_a_trace_without_the_order_of_svinval_says_so(ordered: bool) -> None:
    checker = FenceChecker(MACHINE, ordered=ordered)
    hidden = build(checker, ORIGIN, Ending(complete=True), Places(None), (), {})["hidden"]
    assert any("older than version 3" in sentence for sentence in hidden) != ordered


def test_a_fence_before_the_store_is_the_kind_order() -> None:
    guest, entry = started()
    used(guest)
    guest.fence(VA)
    guest.store(entry, leaf(NEW))
    guest.access(VA)
    (row,) = document(guest)["findings"]
    assert (row["kind"], row["fence"]["verdict"]) == ("order", "before")


def test_the_fence_of_the_old_value_is_not_taken_for_one_before_the_store() -> None:
    guest, entry = started()
    used(guest)
    guest.store(entry, leaf(NEW))
    guest.access(VA)
    (row,) = document(guest)["findings"]
    assert (row["kind"], row["fence"]["verdict"]) == ("frame-changed", "never")


def test_a_suppression_needs_a_reason_and_takes_a_finding_out(tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_text(
        '[[suppress]]\nkind = "frame-changed"\nreason = "known"\n'
        '[[suppress]]\nkind = "order"\nreason = "gone"\n'
    )
    guest = moved()
    guest.access(VA)
    found = document(guest, *suppress.read(file, KINDS))
    assert found["findings"] == []
    assert [row["reason"] for row in found["suppressed"]] == ["known"]
    assert found["unused_suppressions"] == ["order"]


@pytest.mark.parametrize(
    "content, says",
    [
        ('[[suppress]]\nkind = "order"\n', "gives no reason"),
        ('[[suppress]]\nreason = "all"\n', "would accept every finding"),
        ('[[suppress]]\nkind = "odd"\nreason = "x"\n', "unknown kind odd"),
        ('[[suppress]]\nknd = "order"\nreason = "x"\n', "unknown key knd"),
        ("suppress = 3\n", "[[suppress]] tables"),
        ("= =\n", "not a TOML file"),
    ],
)
def test_a_malformed_suppression_is_refused(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "known.toml"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"--suppress") as caught:
        suppress.read(file, KINDS)
    assert says in str(caught.value)


def test_sarif_and_junit_say_the_same_as_the_document() -> None:
    guest = moved()
    guest.access(VA, Access.WRITE)
    found = document(guest)
    (result,) = json.loads(exchange.sarif(found))["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("frame-changed", "error")
    suite = ElementTree.fromstring(exchange.junit(found))
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    nothing = document(started()[0])
    assert json.loads(exchange.sarif(nothing))["runs"][0]["results"] == []
    assert ElementTree.fromstring(exchange.junit(nothing)).get("failures") == "0"


def test_a_call_chain_is_in_every_output_but_junit() -> None:
    guest = moved()
    guest.access(VA)
    chain = [Frame(0x1000, "inner+0x4", "a.c:3"), Frame(0x2000, None, None)]
    found = document(guest, chain=chain)
    (row,) = found["findings"]
    assert row["call_chain"] == [
        {"pc": 0x1000, "symbol": "inner+0x4", "source": "a.c:3"},
        {"pc": 0x2000, "symbol": None, "source": None},
    ]
    assert "call_chain_reason" not in row
    (result,) = json.loads(exchange.sarif(found))["runs"][0]["results"]
    (stack,) = result["stacks"]
    first, second = (frame["location"] for frame in stack["frames"])
    assert first["physicalLocation"]["region"] == {"startLine": 3}
    assert second["logicalLocations"] == [{"fullyQualifiedName": "0x2000"}]
    assert "from    0x2000" in text.render(found).plain


def test_a_call_chain_that_is_not_known_has_a_reason() -> None:
    guest = moved()
    guest.access(VA)
    (row,) = document(guest)["findings"]
    assert (row["call_chain"], row["call_chain_reason"]) == (None, "a test has none")
    found = build(checker_of(guest), ORIGIN, Ending(complete=True), Places(None), (), {})
    assert "trace" in found["findings"][0]["call_chain_reason"]
    assert "stacks" not in json.loads(exchange.sarif(found))["runs"][0]["results"][0]


def test_the_text_names_store_access_and_what_is_hidden() -> None:
    guest = moved()
    guest.access(VA)
    printed = text.render(document(guest)).plain
    assert f"frame-changed at {VA:#x}" in printed
    assert f"{leaf(OLD):#x} -> {leaf(NEW):#x}" in printed
    assert "filter of 1 slots" in printed
    assert "1 store site owed a fence" in printed


@pytest.mark.parametrize(
    "words, says",
    [
        (["linux", "--scenario", "map"], "--scenario works only"),
        (["micro", "--scenario", "map", "--workload", "x"], "exclude each other"),
        (["micro", "--backend", "gdb"], "--backend"),
        (["micro", "--filter", "3"], "--filter"),
        (["micro", "--scenario", "nosuch"], "there is no 'nosuch'"),
        (["/"], "/: holds no _manifest.jsonl"),
        (["/", "--from", "boot"], "--from describes a run"),
        (["/", "--expect", "# ", "--send", "x"], "--expect describes a run"),
    ],
)
def test_options_that_make_no_sense_are_refused(words: list[str], says: str) -> None:
    result = CliRunner().invoke(cosim, ["check", *words])
    assert isinstance(result.exception, UsageError)
    assert says in str(result.exception)


def test_the_command_that_debugs_the_checked_run(tmp_path: Path) -> None:
    kernel = tmp_path / "a kernel"
    words = ["--kernel", str(kernel), "--from", "start", "--to", "console:a b", "--filter", "4"]
    words += ["--expect", "# ", "--send", "ls\\n", "--expect", "$", "--logs", str(tmp_path)]
    with check.command.make_context("check", words):
        shown = check._debugging()
    assert shlex.split(shown) == [
        *("cosim", "debug", "--kernel", str(kernel), "--from", "start", "--to", "console:a b"),
        *("--expect", "# ", "--expect", "$", "--send", "ls\\n", "--at", "finding"),
    ]
    debug.command.make_context("debug", shlex.split(shown)[2:])
    with check.command.make_context("check", ["micro", "--scenario", "bug-unmap", "--json"]):
        assert check._debugging() == "cosim debug micro --scenario bug-unmap --at finding"
