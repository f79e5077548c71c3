"""The size of QEMU's overlays, which have no name."""

from __future__ import annotations

import os
from pathlib import Path

from cosim.machine.overlays import written


def test_only_deleted_files_with_the_name_of_an_overlay_count(tmp_path: Path) -> None:
    before = written(os.getpid())
    names = ("vl.a1B2c3", "vl.a1B2c4", "other.txt")
    files = [(tmp_path / name).open("wb", buffering=0) for name in names]
    for file in files:
        file.write(bytes(1 << 20))
    (tmp_path / "vl.a1B2c3").unlink()
    (tmp_path / "other.txt").unlink()
    # The one that still has a name is not QEMU's.
    assert (1 << 20) <= written(os.getpid()) - before < (2 << 20)
    for file in files:
        file.close()
    assert written(os.getpid()) == before


def test_a_process_that_is_gone_has_none() -> None:
    assert written(2**22 + 1) == 0
