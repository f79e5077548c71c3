"""Guests that trap without end: ended at once, with what was seen and where they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Ended, Home, run

pytestmark = pytest.mark.system

_LIMIT = 200
"""Seconds; the loop is found long before, on a busy machine, too."""
_BACKENDS = ["gdb", "plugin", "gdb+plugin"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One cache for all, so that the plugin is compiled once."""
    return Home(tmp_path_factory.mktemp("home"))


def _capture(
    name: str, backend: str, folder: Path, home: Home, *options: str
) -> tuple[Ended, dict[str, Any]]:
    kernel = bare_kernel.build(name, folder, bare_kernel.M_MODE)
    words: list[str | Path] = ["capture", "--kernel", kernel, "--bios", "none", "--memory", "128M"]
    words += ["--backend", backend, "--from", "boot", "--time-limit", str(_LIMIT), *options]
    ended = run([*words, "--json", "-o", folder / "trace"], home.environment())
    return ended, ended.document


@pytest.mark.parametrize("backend", _BACKENDS)
def test_a_vector_that_svade_makes_fault(backend: str, tmp_path: Path, home: Home) -> None:
    cpu = ("--cpu", "rv64,svade=on")
    ended, document = _capture("trap_loop", backend, tmp_path, home, *cpu)
    assert ended.status == 3
    assert (
        "the guest traps without end, at its own trap vector 0x0000000080000074 "
        "(strap: c.j 0) (scause 12, instruction page fault; stval 0x80000074)"
    ) in ended.line
    assert "leave A and D to the hardware" in ended.line and "use --cpu rv64" in ended.line
    # Not the time limit ended it.
    assert ended.seconds < _LIMIT
    assert not document["complete"] and "traps without end" in document["incomplete_because"]
    assert document["events"]["fence"]["all"] == 1
    assert document["events"]["satp_write"] == 1


@pytest.mark.parametrize("backend", _BACKENDS)
def test_no_vector_at_all(backend: str, tmp_path: Path, home: Home) -> None:
    ended, document = _capture("trap_loop_m", backend, tmp_path, home)
    assert ended.status == 3
    assert "at its own trap vector 0x0000000000000000" in ended.line
    assert "(mcause 1, instruction access fault; mtval 0x0)" in ended.line
    assert "--cpu" not in ended.line
    assert document["events"]["fence"]["all"] == 1


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_in_a_dialogue(backend: str, tmp_path: Path, home: Home) -> None:
    ended, document = _capture(
        "trap_loop_m", backend, tmp_path, home, "--expect", "nothing", "--send", "x"
    )
    assert ended.status == 3
    assert "the guest traps without end, at its own trap vector 0x0000000000000000" in ended.line
    assert ended.seconds < _LIMIT
    assert document["events"]["fence"]["all"] == 1


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_a_guest_that_is_not_recorded(backend: str, tmp_path: Path, home: Home) -> None:
    kernel = bare_kernel.build("trap_loop_m", tmp_path, bare_kernel.M_MODE)
    words: list[str | Path] = ["run", "--kernel", kernel, "--bios", "none", "--memory", "128M"]
    words += ["--live", "--backend", backend, "--from", "boot", "--model", "native", "--json"]
    ended = run(words, home.environment())
    assert ended.status == 3
    said = ended.stderr.splitlines()[-1]
    assert "the guest traps without end, at its own trap vector 0x0000000000000000" in said
    assert ended.document["events"]["fence"]["all"] == 1
    # QEMU was ended in order, so it was audited.
    assert ended.document["audit"]["checks"] >= 1


def test_the_hint_helps(tmp_path: Path, home: Home) -> None:
    """With the CPU that it names, the same kernel spins in S-mode up to the limit."""
    ended, _ = _capture("trap_loop", "plugin", tmp_path, home, "--cpu", "rv64", "--time-limit", "3")
    assert "3 s passed" in ended.line
    assert "traps" not in ended.line


def test_the_time_limit_of_a_guest_that_always_comes_back_to_its_fault(
    tmp_path: Path, home: Home
) -> None:
    """No loop of the vector: the limit ends it, and what was seen is kept.

    QEMU hears that it is to end after some hundred thousand traps, which takes long on a busy
    machine.
    """
    ended, document = _capture("trap_handler", "plugin", tmp_path, home, "--time-limit", "2")
    assert ended.status == 3
    assert re.search(
        r"2 s passed and --to power-off was not reached; the guest is running; it traps again and "
        r"again, at 0x[0-9a-f]{16} \(again\+0x4: ld t1, 0\(t0\)\) "
        r"\(scause 13, load page fault; stval 0x300000\);",
        ended.line,
    )
    assert not document["complete"]
    assert document["events"]["fence"]["all"] == 1
    assert document["events"]["page_fault"] > 1000
    # QEMU was not killed, so the plugin has counted and audited.
    assert document["region"]["instructions"] > 3000
    assert document["audit"]["missed_writes"] == 0


@pytest.mark.parametrize("backend", ["gdb+plugin", "gdb", "plugin"])
def test_a_loop_behind_the_region_is_no_matter(backend: str, tmp_path: Path) -> None:
    """QEMU that records such a guest does not hear that it is to end."""
    kernel = bare_kernel.build("trap_loop_behind_end", tmp_path)
    captured = bare_kernel.capture(kernel, backend, tmp_path / "captured")
    assert captured.document["complete"]
    assert captured.document["events"]["fence"]["all"] == 1
