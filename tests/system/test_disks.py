"""Disks of guests: read by DMA into a table, never written unless asked, whatever ends the run."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
import time
from pathlib import Path

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import PATIENCE, Command, Home, run

pytestmark = pytest.mark.system

_ENTRIES = {0: 0x2000_00CF, 3: 0x2000_04CF, 63: 0x2000_0CCF}
"""What the first sector holds as page-table entries; the others are 0, as in the table before."""
_WRITTEN = b"w" * 512


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    sector = bytearray(512)
    for number, entry in _ENTRIES.items():
        sector[8 * number : 8 * number + 8] = struct.pack("<Q", entry)
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(sector) + bytes(512))
    return path


def _words(kernel: Path, disk: Path, backend: str, to: str) -> list[str | Path]:
    machine: list[str | Path] = ["--memory", "128M", "--disk", disk, "--backend", backend]
    return ["run", "--kernel", kernel, *machine, "--from", "mark:begin", "--to", to, "--json"]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_dma_into_a_live_table_is_no_missed_store(tmp_path: Path, disk: Path) -> None:
    kernel, before = bare_kernel.build("disk_dma", tmp_path), _digest(disk)
    home = Home(tmp_path / "home")
    ended = run(_words(kernel, disk, "gdb", "mark:late"), home.environment())
    assert ended.status == 1, ended.stderr
    audit = ended.document["audit"]
    assert (audit["missed_writes"], audit["dma_writes"]) == (0, len(_ENTRIES))
    # An sd and an hsv.
    assert ended.document["events"]["pte_write"] == 2 + len(_ENTRIES)
    assert {one["index"] - 64: int(one["found"], 16) for one in audit["dma"]} == _ENTRIES
    (described,) = ended.document["guest"]["disks"]
    assert described["sha256"] == {str(disk): before}
    assert (described["bus"], described["format"]) == ("mmio", "raw")
    assert _digest(disk) == before
    assert home.leftovers() == []


def test_a_disk_is_written_if_that_is_asked(tmp_path: Path, disk: Path) -> None:
    kernel = bare_kernel.build("disk_dma", tmp_path)
    home = Home(tmp_path / "home")
    words = [*_words(kernel, disk, "plugin", "mark:late"), "--disk-write"]
    ended = run(words, home.environment())
    assert ended.status == 1, ended.stderr
    audit = ended.document["audit"]
    assert (audit["missed_writes"], audit["dma_writes"]) == (0, len(_ENTRIES))
    assert disk.read_bytes()[512:] == _WRITTEN


def test_a_killed_run_leaves_the_disk_as_it_was_and_nothing_behind(
    tmp_path: Path, disk: Path
) -> None:
    kernel, before = bare_kernel.build("disk_spin", tmp_path), _digest(disk)
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    logs = tmp_path / "logs"
    words = [*_words(kernel, disk, "plugin", "mark:end"), "--logs", logs]
    with Command(words, home.environment()) as command:
        console = logs / "plugin.console.log"
        deadline = time.monotonic() + PATIENCE
        while not (console.exists() and console.read_bytes().endswith(b"w")):
            assert time.monotonic() < deadline and command.process.poll() is None
            time.sleep(0.1)
        # Another program may read the disk meanwhile, but not write it.
        refused = run(
            [*_words(kernel, disk, "plugin", "mark:end"), "--disk-write"], other.environment()
        )
        assert refused.status == 3
        assert "lock; another program uses it" in refused.line
        os.kill(command.process.pid, signal.SIGKILL)
        while command.living():
            assert time.monotonic() < deadline + PATIENCE
            time.sleep(0.1)
    words = [*_words(kernel, disk, "plugin", "mark:end"), "--disk-limit", "1K"]
    ended = run(words, other.environment())
    assert ended.status == 3
    assert "has written more than 1 KiB to its disks" in ended.stderr
    assert _digest(disk) == before
    assert [path for path in home.leftovers() if path.name != "recording.bin"] == []
