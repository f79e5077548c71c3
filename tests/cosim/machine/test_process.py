"""Child processes: tied to us, and started beside much mapped memory."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosim.machine import process


def test_a_program_starts_beside_more_mapped_memory_than_the_host_has() -> None:
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 & -(1 << 21)
    # Neighbours become one area of the kernel's, for which a fork would ask at once.
    mapped = [mmap.mmap(-1, half, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(3)]
    try:
        assert process.spawn(["true"]).wait(20) == 0
    finally:
        for area in mapped:
            area.close()


def test_a_missing_program() -> None:
    with pytest.raises(FileNotFoundError):
        process.spawn(["/nowhere/program"])


def test_a_child_dies_with_us() -> None:
    code = (
        "import time; from cosim.machine import process; "
        "print(process.spawn(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    # It is tied when it has become what it was started for.
    while _state(child)[1] != "sleep":
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    while _state(child)[0] not in ("Z", "X", ""):
        time.sleep(0.01)


def _state(pid: int) -> tuple[str, str]:
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except FileNotFoundError:
        return "", ""
    return tail.split()[0], head.partition("(")[2]
