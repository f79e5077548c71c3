"""Table memory: kept up to date by events, or mapped from an image."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from hypervisor_model.errors import ModelError
from hypervisor_model.events import Kind
from hypervisor_model.memory import GuestMemory, apply, holds

BASE = 0x8000_0000


def test_events_change_what_they_say_and_nothing_else() -> None:
    memory = GuestMemory(BASE, 1 << 16)
    memory.write(BASE + 0x2000, 7)
    memory.write(BASE + 0x2FF8, 8)
    memory.write(BASE + 0x3000, 9)
    for kind, a, c in (
        (Kind.TABLE_ADD, BASE + 0x2000, 0),
        (Kind.TABLE_ENTRY, BASE + 0x2010, -5),
        (Kind.PTE_WRITE, BASE + 0x2019, 6),
        (Kind.TABLE_DROP, BASE + 0x3000, 0),
        (Kind.ACCESS, BASE + 0x3000, 1),
        (Kind.PTE_WRITE, BASE - 8, 1),
        (Kind.TABLE_ADD, BASE + (1 << 16), 0),
    ):
        apply(memory.ram, int(kind), a, c)
    written = {int(i) * 8: int(memory.words[i]) for i in np.flatnonzero(memory.words)}
    assert written == {0x2010: -5, 0x2018: 6, 0x3000: 9}


def test_ram_ends_where_it_ends() -> None:
    memory = GuestMemory(BASE, 4096)
    inside = [holds(memory.ram, pa) for pa in (BASE - 1, BASE, BASE + 4095, BASE + 4096, -8)]
    assert inside == [False, True, True, False, False]
    with pytest.raises(ModelError, match="outside of RAM"):
        memory.read(BASE + 4096)


def test_large_memory_costs_only_what_is_touched() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = GuestMemory(0, 4 << 30)
    memory.write(1 << 31, 3)
    assert memory.read(1 << 31) == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_images_are_mapped_privately(tmp_path: Path) -> None:
    image = tmp_path / "ram"
    image.write_bytes(bytes(8192))
    private = GuestMemory.map_image(image, BASE)
    private.write(BASE, 5)
    assert image.read_bytes() == bytes(8192)
    # What a running guest stores is seen.
    with image.open("r+b") as guest:
        guest.seek(4096)
        guest.write(b"\x06")
    assert (private.read(BASE + 4096), private.size, private.base) == (6, 8192, BASE)


@pytest.mark.parametrize(("base", "size"), [(1, 4096), (0, 100), (0, 0), (1 << 56, 4096)])
def test_impossible_ram_is_refused(base: int, size: int) -> None:
    with pytest.raises(ModelError, match="multiples of 4096"):
        GuestMemory(base, size)


def test_what_is_no_file_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("fifo", "endless", "."):
        with pytest.raises(ModelError, match="it is not a regular file"):
            GuestMemory.map_image(tmp_path / name, 0)


def test_unreadable_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot map"):
        GuestMemory.map_image(tmp_path / "none", 0)
    (tmp_path / "empty").touch()
    with pytest.raises(ModelError, match="cannot map"):
        GuestMemory.map_image(tmp_path / "empty", 0)
    (tmp_path / "odd").write_bytes(b"x" * 4097)
    with pytest.raises(ModelError, match="multiples of 4096"):
        GuestMemory.map_image(tmp_path / "odd", 0)
