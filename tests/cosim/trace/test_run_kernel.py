"""The kernel of a run is known only if its file is still the same."""

from __future__ import annotations

from pathlib import Path

from cosim.trace.run_kernel import symbols_of
from guest.spec import checksum
from tests.cosim.kernel.test_images import elf


def test_the_kernel_of_a_run_must_be_the_same(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    load = (0x0007_3783).to_bytes(4, "little")
    kernel.write_bytes(elf(segments=[(1, 5, 0x1000, 0x8020_0000, load, 4)]))
    guest = {"kernel": str(kernel), "sha256": {"kernel": checksum(kernel)}}
    found = symbols_of(guest)
    assert found is not None and found.instruction(0x1000) == "ld a5, 0(a4)"
    kernel.write_bytes(kernel.read_bytes() + b"x")
    assert symbols_of(guest) is None
    kernel.unlink()
    assert symbols_of(guest) is None
    assert symbols_of({}) is None
