"""Paging features that the guest switches, and the A and D bits that the MMU then sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosim.kernel import symbols
from cosim.trace.reader import TraceReader
from hypervisor_model.events import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    FLAG_STOP,
    Envcfg,
    EventBatch,
    Kind,
    PteOp,
)
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

CPU = ("--bios", "none", "--cpu", "rv64,svade=on,svpbmt=on")


def _capture(kernel: Path, backend: str, folder: Path, *options: str) -> bare_kernel.Capture:
    return bare_kernel.capture(kernel, backend, folder, *CPU, *options)


def test_both_backends_see_the_switches_and_what_the_mmu_sets(tmp_path: Path) -> None:
    kernel = bare_kernel.build("envcfg", tmp_path, bare_kernel.M_MODE)
    through_gdb = _capture(kernel, "gdb", tmp_path / "gdb", "--step", "1000")
    through_plugin = _capture(kernel, "plugin", tmp_path / "plugin")
    for seen in (through_gdb, through_plugin):
        document = seen.document
        assert document["audit"]["missed_writes"] == 0
        assert document["audit"]["hardware_ad_updates"] == 2
        events = document["events"]
        assert events["envcfg_write"] == 4 and events["pte_write"] == 0
        assert events["hardware_ad_updates"] == 2
    assert through_gdb.events == through_plugin.events

    for backend in ("gdb", "plugin"):
        environment = Home(tmp_path / f"replay-{backend}").environment()
        ended = run(["replay", str(tmp_path / backend / "trace"), "--json"], environment)
        assert ended.status == 0, ended.stdout + ended.stderr
        parties = ended.document["translations"]
        assert {name: party["illegal"] for name, party in parties.items()} == dict.fromkeys(
            ["reference", "native", "nested", "shadow", "lsp"], 0
        )
        # What the MMU sets is no store.
        assert ended.document["policies"]["shadow"]["exits"]["pt_write"] == 0

    switched = through_plugin.of(Kind.ENVCFG_WRITE)
    both = ENVCFG_ADUE | ENVCFG_PBMTE
    assert {event["c"] for event in switched} == {both}
    # QEMU's CPU has PBMTE on after reset if it has Svpbmt, and ADUE off if it has Svade.
    # henvcfg is for virtual machines of the guest; it is told and not counted among the four.
    assert [
        (event["sub"], event["a"] & both, event["b"] & both, event["flags"]) for event in switched
    ] == [
        (Envcfg.MENVCFG, 0, 0, FLAG_STOP),
        (Envcfg.MENVCFG, 0, ENVCFG_ADUE, 0),
        (Envcfg.HENVCFG, 0, ENVCFG_ADUE, 0),
        (Envcfg.HENVCFG, ENVCFG_ADUE, 0, 0),
        (Envcfg.MENVCFG, ENVCFG_ADUE, 0, 0),
        (Envcfg.MENVCFG, 0, ENVCFG_PBMTE, 0),
        (Envcfg.MENVCFG, ENVCFG_PBMTE, 0, 0),
    ]

    leaf, page = (symbols.load(kernel).address(name) for name in ("leaf", "page"))
    updates = [
        (event["a"], event["b"], event["c"], event["sub"])
        for event in through_plugin.of(Kind.PTE_WRITE)
    ]
    assert updates == [
        (leaf + 40, page >> 2 | 0x0F, page >> 2 | 0xCF, PteOp.HARDWARE_AD),
        (leaf + 48, page >> 2 | 0x4F, page >> 2 | 0xCF, PteOp.HARDWARE_AD),
    ]


def test_both_backends_find_what_the_mmu_sets_in_micro(tmp_path: Path) -> None:
    seen = {}
    for backend in ("plugin", "gdb"):
        home = Home(tmp_path / f"home-{backend}", "micro")
        words = ["capture", "micro", "--cpu", "rv64,svinval=on", "--backend", backend, "--json"]
        words += ["--workload", "scenario=all", "-o", str(tmp_path / backend)]
        ended = run(words, home.environment())
        assert ended.status == 0, ended.stdout + ended.stderr
        events = ended.document["events"]
        assert events["hardware_ad_updates"] == ended.document["audit"]["hardware_ad_updates"]
        # A CPU without Svade: the guest's own stores are those of one with it.
        assert events["pte_write"] > 100 and events["hardware_ad_updates"] > 5
        seen[backend] = [
            event.tobytes()
            for batch in TraceReader(tmp_path / backend).batches()
            for event in _without_icount(batch)
        ]
    assert seen["plugin"] == seen["gdb"]


def _without_icount(batch: EventBatch) -> EventBatch:
    """What both backends see of a run that is not stepped."""
    kept: EventBatch = batch[~np.isin(batch["kind"], (Kind.ACCESS, Kind.PAGE_FAULT))].copy()
    kept["icount"] = -1
    return kept
