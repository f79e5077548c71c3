"""What memory is left, by files of /proc and of control groups made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosim.machine.host_memory import Available, available

_MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    _write(
        tmp_path / "proc/meminfo",
        "MemTotal: 9000 kB\nMemAvailable: 8388608 kB\nHugePages_Total: 0\nSwapFree: 1048576 kB\n",
    )
    return tmp_path


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _v2(folder: Path, limit: str, usage: int, reclaimable: int = 0) -> None:
    _write(folder / "memory.max", f"{limit}\n")
    _write(folder / "memory.current", f"{usage}\n")
    _write(folder / "memory.stat", f"anon 1\ninactive_file {reclaimable}\nactive_file 5\n")


def test_this_machine_with_its_swap(root: Path) -> None:
    assert available(root) == Available(9 << 30, "this machine")


def test_the_tightest_control_group_counts(root: Path) -> None:
    _write(root / "proc/self/cgroup", "0::/outer/inner\n")
    groups = root / "sys/fs/cgroup"
    _v2(groups / "outer/inner", "max", 70 * _MIB)
    _v2(groups / "outer", str(300 * _MIB), 200 * _MIB, 50 * _MIB)
    assert available(root) == Available(150 * _MIB, "the control group /outer")
    _v2(groups / "outer/inner", str(100 * _MIB), 70 * _MIB)
    assert available(root) == Available(30 * _MIB, "the control group /outer/inner")
    # Above its limit, as after the limit was lowered.
    _v2(groups / "outer/inner", str(100 * _MIB), 170 * _MIB)
    assert available(root) == Available(0, "the control group /outer/inner")


def test_a_container_sees_its_own_group_as_the_root(root: Path) -> None:
    _write(root / "proc/self/cgroup", "0::/\n")
    _v2(root / "sys/fs/cgroup", str(_MIB), 0)
    assert available(root) == Available(_MIB, "the control group /")


def test_control_groups_of_version_1(root: Path) -> None:
    _write(root / "proc/self/cgroup", "5:cpu,memory:/a\n2:cpuset:/b\n0::/\n")
    for group, limit in (("a", 1 << 30), (".", (1 << 63) - 4096)):
        folder = root / "sys/fs/cgroup/memory" / group
        _write(folder / "memory.limit_in_bytes", f"{limit}\n")
        _write(folder / "memory.usage_in_bytes", f"{900 * _MIB}\n")
        _write(folder / "memory.stat", f"inactive_file 1\ntotal_inactive_file {100 * _MIB}\n")
    assert available(root) == Available(224 * _MIB, "the control group /a")


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert available(tmp_path) is None


def test_the_real_system() -> None:
    free = available()
    assert free is not None
    assert 0 < free.size <= 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
