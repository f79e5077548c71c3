"""A vector store to a table is one store in both backends: an event for each entry it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel import symbols
from hypervisor_model.events import FLAG_CONT, Kind, PteOp
from tests.system import bare_kernel

pytestmark = pytest.mark.system


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_each_entry_that_it_changed_is_an_event(backend: str, tmp_path: Path) -> None:
    kernel = bare_kernel.build("vector_store", tmp_path)
    seen = bare_kernel.capture(kernel, backend, tmp_path / backend, "--cpu", "rv64,svade=on,v=on")
    assert seen.document["audit"]["missed_writes"] == 0
    assert seen.document["audit"]["hardware_ad_updates"] == 0
    leaf = symbols.load(kernel).address("leaf")
    written = seen.of(Kind.PTE_WRITE)
    assert [
        ((event["a"] - leaf) // 8, event["b"], event["c"], event["flags"]) for event in written
    ] == [
        (10, 0, 0x100, 0),
        (11, 0, 0x200, FLAG_CONT),
        (12, 0, 0x100, 0),
        (13, 0, 0x200, FLAG_CONT),
        (4, 0, 0x100, 0),
        (12, 0x100, 0x200, FLAG_CONT),
        (5, 0, 0x200, 0),
    ]
    assert {(event["sub"], event["size"]) for event in written} == {(PteOp.VECTOR, 0)}
    assert len({event["pc"] for event in written}) == 4
