"""A run that may need more memory than there is says so; one that cannot work is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cosim.errors import EnvironmentFault
from cosim.machine.configuration import MachineConfig
from cosim.machine.host_memory import Available
from cosim.run.names import COMMAND_LINE, IN_FILE, Names
from cosim.run.plan import TOOL_BYTES, Plan
from cosim.session.needs import check_memory

_MIB, _GIB = 1 << 20, 1 << 30


def _plan(folder: Path, memory: int, names: Names = COMMAND_LINE) -> Plan:
    kernel = folder / "kernel"
    with kernel.open("wb") as file:
        # Sparse: 100 MiB that take no space.
        file.truncate(100 * _MIB)
    machine = MachineConfig(kernel, memory=memory)
    parts = {"machine": machine, "names": names, "memory_needed": memory + TOOL_BYTES}
    return cast(Plan, SimpleNamespace(**parts, image=SimpleNamespace(path=kernel)))


def test_enough(tmp_path: Path) -> None:
    free = Available(4 * _GIB + TOOL_BYTES, "this machine")
    assert check_memory(_plan(tmp_path, 4 * _GIB), free) is None


def test_perhaps_too_little(tmp_path: Path) -> None:
    free = Available(3 * _GIB, "the control group /a")
    said = check_memory(_plan(tmp_path, 4 * _GIB), free)
    assert said == (
        "this run needs up to 4.5 GiB of memory (4.0 GiB of guest RAM and about 512 MiB for QEMU "
        "and the models), and the control group /a has 3.0 GiB left; if the guest uses all its "
        "RAM, QEMU is killed: give it less with --memory"
    )
    named = check_memory(_plan(tmp_path, 4 * _GIB, IN_FILE), free)
    assert named is not None and named.endswith("give it less with memory")


def test_a_run_that_cannot_work(tmp_path: Path) -> None:
    free = Available(164 * _MIB, "this machine")
    assert check_memory(_plan(tmp_path, 128 * _MIB), free) is not None
    less = free._replace(size=free.size - 1)
    with pytest.raises(EnvironmentFault, match=r"at least 164 MiB .* has 163 MiB left"):
        check_memory(_plan(tmp_path, 128 * _MIB), less)
