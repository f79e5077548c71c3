"""Small kernels in M-mode: they wait (``wfi``), store past translation, and fence in text that their
file calls data."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

_PF_X = 1


def _capture(name: str, backend: str, folder: Path) -> dict[str, Any]:
    return _capture_file(bare_kernel.build(name, folder, bare_kernel.M_MODE), backend, folder)


def _capture_file(kernel: Path, backend: str, folder: Path) -> dict[str, Any]:
    words: list[str | Path] = ["capture", "--kernel", kernel, *"--bios none --memory 128M".split()]
    words += ["--backend", backend, "--from", "boot", "--json", "-o", folder / "trace"]
    ended = run(words, Home(folder / "home").environment())
    assert ended.status == 0, ended.stderr
    document: dict[str, Any] = ended.document
    assert document["complete"]
    return document


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_the_fence_behind_a_wait_is_seen(backend: str, tmp_path: Path) -> None:
    document = _capture("waits", backend, tmp_path)
    assert document["events"]["fence"] == {"va": 0, "va_asid": 0, "asid": 0, "all": 1}


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_stores_of_machine_mode_and_a_satp_that_traps(backend: str, tmp_path: Path) -> None:
    document = _capture("m_mode_stores", backend, tmp_path)
    events = document["events"]
    assert events["fence"]["all"] == 3
    assert (events["pte_write"], events["satp_write"]) == (4, 1)
    assert document["audit"]["missed_writes"] == 0


def test_text_without_a_flag_is_text(tmp_path: Path) -> None:
    kernel = bare_kernel.build("m_mode_stores", tmp_path, bare_kernel.M_MODE)
    data = bytearray(kernel.read_bytes())
    (first,), (size, count) = (
        struct.unpack_from("<Q", data, 32),
        struct.unpack_from("<HH", data, 54),
    )
    for header in range(first, first + size * count, size):
        (flags,) = struct.unpack_from("<I", data, header + 4)
        struct.pack_into("<I", data, header + 4, flags & ~_PF_X)
    kernel.write_bytes(data)
    document = _capture_file(kernel, "gdb", tmp_path)
    assert document["events"]["fence"]["all"] == 3
    assert document["events"]["pte_write"] == 4
    assert document["audit"]["late_sites"] == 0
