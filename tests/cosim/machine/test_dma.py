"""Where devices write, from the lines of QEMU's trace."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from cosim.machine.dma import DmaWrites

_LINE = "address_space_map as:0x5586c0c80860 addr 0x%x:%x write:%d attrs:0x0\n"


def _read(text: str, log: Path) -> DmaWrites:
    theirs, ours = os.pipe()
    writes = DmaWrites(FileIO(theirs), log)
    with FileIO(ours, "w") as line:
        # In pieces, as a pipe may give it.
        for start in range(0, len(text), 7):
            line.write(text[start : start + 7].encode())
    writes.finish()
    return writes


def test_exactly_the_entries_that_a_device_wrote_to_are_covered(tmp_path: Path) -> None:
    text = _LINE % (0x80001200, 0x200, 1) + _LINE % (0x80004FF8, 0x10, 1) + _LINE % (0x9000, 1, 1)
    writes = _read(text, tmp_path / "log")
    covered = [pa for pa in range(0x80000000, 0x80007000, 8) if writes.covers(pa)]
    assert covered == [*range(0x80001200, 0x80001400, 8), 0x80004FF8, 0x80005000]
    assert writes.covers(0x9000) and not writes.covers(0x9008)


def test_what_a_device_reads_is_no_evidence(tmp_path: Path) -> None:
    writes = _read(_LINE % (0x80001000, 0x200, 0) + _LINE % (0x80002000, 0, 1), tmp_path / "log")
    assert not writes.covers(0x80001000) and not writes.covers(0x80002000)


def test_other_lines_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    _read("guest error\n" + _LINE % (0x80001000, 8, 1) + "another\n", log)
    assert log.read_text() == "before\nguest error\nanother\n"
