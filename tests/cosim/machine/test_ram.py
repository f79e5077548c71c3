"""Guest RAM, shared with another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosim.errors import MachineError
from cosim.machine.configuration import RAM_BASE
from cosim.machine.ram import GuestRam


def test_another_process_sees_what_we_see() -> None:
    ram = GuestRam(1 << 20)
    script = "import os, sys; os.pwrite(int(sys.argv[1]), b'\\x2a' + bytes(7), 8192)"
    subprocess.run(
        [sys.executable, "-c", script, str(ram.descriptor)],
        pass_fds=[ram.descriptor],
        check=True,
        timeout=60,
    )
    assert ram.words()[8192 // 8] == 42
    assert ram.bytes[8192] == 42
    ram.words()[0] = -1
    assert ram.path(os.getpid()).read_bytes()[:8] == b"\xff" * 8
    ram.close()


def test_extents_are_what_was_written() -> None:
    ram = GuestRam(64 << 20)
    assert ram.extents() == []
    page = 4096
    ram.bytes[3 * page] = 1
    ram.bytes[(32 << 20) + 5] = 1
    found = ram.extents()
    assert sum(size for _, size in found) < 8 << 20
    for place in (3 * page, (32 << 20) + 5):
        assert any(at <= RAM_BASE + place < at + size for at, size in found)
    assert all(at >= RAM_BASE for at, _ in found)
    ram.close()


def test_it_stays_readable_after_the_end() -> None:
    ram = GuestRam(1 << 20)
    ram.words()[1] = 7
    ram.close()
    ram.close()
    assert ram.words()[1] == 7


@pytest.mark.parametrize("size", [1 << 62, 1 << 70])
def test_more_than_there_is(size: int) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(MachineError, match=r"cannot allocate .* use a smaller --memory"):
        GuestRam(size)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
