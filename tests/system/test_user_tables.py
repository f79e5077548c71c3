"""Tables that a guest maps as user memory, too: their stores are seen through that mapping."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel import symbols
from hypervisor_model.events import Kind, PteOp
from tests.system import bare_kernel

pytestmark = pytest.mark.system


def test_both_backends_see_every_store(tmp_path: Path) -> None:
    kernel = bare_kernel.build("user_tables", tmp_path)
    through_gdb = bare_kernel.capture(kernel, "gdb", tmp_path / "gdb")
    through_plugin = bare_kernel.capture(kernel, "plugin", tmp_path / "plugin")
    for seen in (through_gdb, through_plugin):
        assert seen.document["audit"]["missed_writes"] == 0
    assert through_gdb.events == through_plugin.events
    known = symbols.load(kernel)

    def at(table: str, index: int) -> int:
        return known.address(table) + 8 * index

    def leaf(target: str, flags: int) -> int:
        return known.address(target) >> 2 | flags

    written = [
        (event["a"], event["c"], PteOp(event["sub"]).name, event["priv"])
        for event in through_gdb.of(Kind.PTE_WRITE)
    ]
    assert written == [
        (at("leaf", 100), 0x100, "STORE", 1),
        (at("leaf", 100), 0x300, "AMO", 1),
        (at("leaf", 101), 0x400, "STORE", 0),
        (at("middle", 1), leaf("late", 1), "STORE", 1),
        (at("late", 5), 0x100, "STORE", 1),
        (at("late", 6), 0x200, "STORE", 0),
        (at("leaf", 4), leaf("late", 0xDF), "STORE", 1),
        (at("late", 7), 0x300, "STORE", 0),
        (at("middle", 2), 0x80200000 >> 2 | 0xDF, "STORE", 1),
        (at("late", 8), 0x400, "STORE", 1),
        (at("leaf", 4), leaf("data", 0xDF), "STORE", 1),
        (at("leaf2", 102), 0x100, "STORE", 1),
        (at("leaf2", 2), leaf("data", 0xDF), "STORE", 1),
        (at("leaf", 103), 0x100, "STORE", 1),
    ]
    # The mapping that leads to a table no more is watched no more: 1,000 stores go through it.
    assert through_gdb.document["region"]["stops"] < 100
