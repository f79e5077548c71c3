"""The initramfs of the guest, and what its disk has besides packages."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from cosim.errors import EnvironmentFault
from guest.debian import recipe


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "busybox").write_bytes(b"busybox")
    for name in ("ext4", "jbd2", "kvm"):
        (tmp_path / "modules" / f"{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    return tmp_path


def test_modules_come_after_those_that_they_need(debian: Path) -> None:
    found = {entry.path: entry for entry in recipe.entries(debian)}
    assert found["modules/order"].data == b"jbd2.ko\next4.ko\n"
    assert found["modules/ext4.ko"].data == b"ext4"
    assert "modules/kvm.ko" not in found
    assert found["init"].mode & 0o777 == found["bin/busybox"].mode & 0o777 == 0o755


def test_a_damaged_module_is_named(debian: Path) -> None:
    (debian / "modules" / "jbd2.ko.xz").write_bytes(b"x")
    with pytest.raises(EnvironmentFault, match=r"jbd2\.ko\.xz is damaged .*guest fetch linux"):
        recipe.entries(debian)
