"""``cbo.zero`` clears as much as the CPU's cache block is large, which QEMU is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel import symbols
from hypervisor_model.events import FLAG_CONT, SIZE_MORE, Kind, PteOp
from tests.system import bare_kernel

pytestmark = pytest.mark.system


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
@pytest.mark.parametrize("size", [32, 128, 256])
def test_the_whole_block_is_seen(size: int, backend: str, tmp_path: Path) -> None:
    kernel = bare_kernel.build("cbo_zero", tmp_path)
    cpu = f"rv64,svade=on,cboz_blocksize={size}"
    seen = bare_kernel.capture(kernel, backend, tmp_path / backend, "--cpu", cpu)
    assert seen.document["audit"]["missed_writes"] == 0
    written = seen.of(Kind.PTE_WRITE)
    first = symbols.load(kernel).address("leaf") + 1128 // size * size
    assert [event["a"] for event in written] == list(range(first, first + size, 8))
    assert {(event["b"], event["c"], event["sub"]) for event in written} == {
        (0x100, 0, PteOp.CBO_ZERO)
    }
    assert {event["size"] for event in written} == {min(size, SIZE_MORE)}
    assert [event["flags"] for event in written] == [0] + (len(written) - 1) * [FLAG_CONT]


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_a_block_that_maps_itself_is_seen(backend: str, tmp_path: Path) -> None:
    kernel = bare_kernel.build("cbo_zero_of_itself", tmp_path)
    seen = bare_kernel.capture(kernel, backend, tmp_path / backend, "--cpu", "rv64,svade=on")
    assert seen.document["audit"]["missed_writes"] == 0
    first = symbols.load(kernel).address("leaf") + 1088
    written = seen.of(Kind.PTE_WRITE)
    assert [event["a"] for event in written] == list(range(first, first + 64, 8))
    assert {(event["c"], event["sub"]) for event in written} == {(0, PteOp.CBO_ZERO)}
