"""A guest that runs a virtual machine itself: what that does is none of the guest's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Ended, Home, run

pytestmark = pytest.mark.system


def _run(backend: str, folder: Path, *options: str, name: str = "vs_mode") -> Ended:
    kernel = bare_kernel.build(name, folder)
    words = ["run", "--kernel", str(kernel), "--memory", "128M", "--cpu", "rv64,svade=on,h=on"]
    words += ["--backend", backend, *bare_kernel.REGION, *options, "--json"]
    return run(words, Home(folder / "home").environment())


def _result(backend: str, folder: Path, *options: str, name: str = "vs_mode") -> dict[str, Any]:
    ended = _run(backend, folder, *options, name=name)
    assert ended.status == 0, ended.stdout + ended.stderr
    return ended.document


def _check_own(document: dict[str, Any]) -> None:
    events, audit = document["events"], document["audit"]
    assert events["fence"] == {"va": 0, "va_asid": 0, "asid": 0, "all": 1}
    assert events["satp_write"] == 0 and events["pte_write"] == 1
    assert audit["missed_writes"] == 0
    assert "V=1" in events["reasons"]["virtual"]
    assert all(party["illegal"] == 0 for party in document["translations"].values())
    for name in ("shadow", "lsp"):
        policy = document["policies"][name]
        exits = policy["exits"]
        assert exits["total"] is None and "exits.total" in policy["reasons"]
        assert exits["satp_write"] == 0
        assert exits["fence" if name == "shadow" else "fence_global"] == 1
        assert "V=1" in policy["reasons"]["exits.satp_write"]


def test_the_plugin_counts_the_virtual_machine_apart(tmp_path: Path) -> None:
    document = _result("plugin", tmp_path)
    _check_own(document)
    virtual = document["events"]["virtual"]
    # hgatp, vsatp and, by itself, the virtual machine's satp; hfence.gvma and its sfence.vma.
    assert virtual["satp_write"] == 3 and virtual["fence"] == 2
    # One of its own, one of hlv; each is an access, too, beside four that do not fault.
    assert virtual["page_fault"] == 2 and document["events"]["page_fault"] == 0
    assert virtual["access"] > 5
    assert document["policies"]["shadow"]["exits"]["guest_fault"] == 0
    assert document["translations"]["reference"]["compared"] > 3


@pytest.mark.parametrize("options", [[], ["--step-all"]])
def test_gdb_takes_the_virtual_machines_satp_for_no_satp_of_the_guest(
    options: list[str], tmp_path: Path
) -> None:
    document = _result("gdb", tmp_path, *options)
    _check_own(document)
    assert document["audit"]["missed_satp_writes"] == 0
    events = document["events"]
    assert events["virtual"] is None
    if options:
        assert events["page_fault"] == 0 and events["access"] > 10
        assert document["policies"]["shadow"]["exits"]["guest_fault"] == 0


def test_the_plugin_begins_a_region_in_the_virtual_machine(tmp_path: Path) -> None:
    document = _result("plugin", tmp_path, "--from", "virtual")
    _check_own(document)
    assert document["events"]["virtual"]["satp_write"] == 1


def test_gdb_refuses_a_region_that_begins_in_the_virtual_machine(tmp_path: Path) -> None:
    ended = _run("gdb", tmp_path, "--from", "virtual")
    assert ended.status == 3 and "V=1" in ended.line


@pytest.mark.parametrize("backend", ["gdb", "plugin", "gdb+plugin"])
def test_a_virtual_machine_whose_satp_traps(backend: str, tmp_path: Path) -> None:
    """With hstatus.VTVM the stub cannot read satp while V=1; the kernel writes vsatp instead."""
    document = _result(backend, tmp_path, name="vs_trap")
    _check_own(document)
    virtual = document["events"]["virtual"]
    if backend == "gdb":
        assert virtual is None
        assert document["audit"]["missed_satp_writes"] == 0
    else:
        # hgatp, vsatp, and vsatp in the virtual machine's place; hfence.gvma and hfence.vvma.
        assert virtual["satp_write"] == 3 and virtual["fence"] == 2
        # As without the trap: it reads through its new tables, and hlv does, too.
        assert virtual["page_fault"] == 2 and virtual["access"] > 5
    if backend == "gdb+plugin":
        assert document["agreement"]["difference"] is None
