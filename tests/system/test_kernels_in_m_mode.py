"""Small kernels in M-mode: waits (``wfi``), untranslated stores, text that the file calls data."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from cosim.errors import MachineError
from cosim.models.pipeline import Pipeline
from cosim.run.plan import resolve
from cosim.run.run_spec import RunSpec
from cosim.session.backends.gdb import Gdb
from cosim.session.execution import execute
from cosim.session.origin import origin
from cosim.session.splits import Splits
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

_PF_X = 1
_BACKENDS = ["gdb", "plugin", "gdb+plugin"]
_BOARD = ("--bios", "none", "--memory", "128M")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One cache for all, so that the plugin is compiled once."""
    return Home(tmp_path_factory.mktemp("home"))


def _capture(
    name: str, backend: str, folder: Path, home: Home, begin: str = "boot"
) -> dict[str, Any]:
    kernel = bare_kernel.build(name, folder, bare_kernel.M_MODE)
    return _capture_file(kernel, backend, folder, home, begin)


def _capture_file(
    kernel: Path, backend: str, folder: Path, home: Home, begin: str = "boot"
) -> dict[str, Any]:
    words: list[str | Path] = ["capture", "--kernel", kernel, *_BOARD]
    words += ["--backend", backend, "--from", begin, "--json", "-o", folder / "trace"]
    ended = run(words, home.environment())
    assert ended.status == 0, ended.stderr
    document: dict[str, Any] = ended.document
    assert document["complete"]
    return document


@pytest.mark.parametrize("backend", _BACKENDS)
@pytest.mark.parametrize("begin", ["boot", "wait"])
def test_the_fence_behind_a_wait_is_seen(
    begin: str, backend: str, tmp_path: Path, home: Home
) -> None:
    """If the region begins at a `wfi`, gdb steps over it."""
    document = _capture("waits", backend, tmp_path, home, begin)
    assert document["events"]["fence"] == {"va": 0, "va_asid": 0, "asid": 0, "all": 1}


@pytest.mark.parametrize("backend", _BACKENDS)
def test_stores_of_machine_mode_and_a_satp_that_traps(
    backend: str, tmp_path: Path, home: Home
) -> None:
    document = _capture("m_mode_stores", backend, tmp_path, home)
    events = document["events"]
    assert events["fence"]["all"] == 3
    assert (events["pte_write"], events["satp_write"]) == (4, 1)
    assert document["audit"]["missed_writes"] == 0


def test_text_without_a_flag_is_text(tmp_path: Path, home: Home) -> None:
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
    document = _capture_file(kernel, "gdb", tmp_path, home)
    assert document["events"]["fence"]["all"] == 3
    assert document["events"]["pte_write"] == 4
    assert document["audit"]["late_sites"] == 0


@pytest.mark.parametrize("backend", ["gdb", "gdb+plugin"])
def test_a_wait_in_code_that_came_later_is_counted(
    backend: str, tmp_path: Path, home: Home
) -> None:
    kernel = bare_kernel.build("moved_wait", tmp_path, bare_kernel.M_MODE)
    document = _capture_file(kernel, backend, tmp_path, home, begin="moved")
    assert document["events"]["fence"]["all"] == 2
    assert document["audit"]["late_sites"] == 0


@pytest.mark.parametrize("backend", ["gdb", "gdb+plugin"])
def test_a_busy_page_with_a_wait_and_a_fence_can_be_stopped(
    backend: str, tmp_path: Path, home: Home
) -> None:
    """QEMU runs such a page instruction by instruction, and yet hears that the time is over."""
    kernel = bare_kernel.build("busy_wait", tmp_path, bare_kernel.M_MODE)
    words: list[str | Path] = ["capture", "--kernel", kernel, *_BOARD, "--backend", backend]
    words += ["--from", "never", "--time-limit", "6", "-o", tmp_path / "trace"]
    ended = run(words, home.environment())
    assert ended.status == 3
    # If the recording does not fill its half of the time, the re-execution takes the rest.
    assert re.search("cut after 3 s, half of --time-limit 6|^6 s passed", ended.line), ended.line


def test_a_standstill_is_noticed_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The page that the wait came to is not looked for, so the re-execution loses count.
    monkeypatch.setattr(Splits, "fresh", lambda *_: frozenset())
    spec = RunSpec(
        name="moved_wait",
        kernel=bare_kernel.build("moved_wait", tmp_path, bare_kernel.M_MODE),
        bios="none",
        memory="128M",
        region_from="moved",
        backend=Gdb(),
    )
    plan = resolve(spec)
    began = time.monotonic()
    outcome = execute(plan, tmp_path, Pipeline(origin(plan), {}))
    assert time.monotonic() - began < 150
    assert isinstance(outcome.error, MachineError)
    assert re.search(
        r"stands still at instruction \d+, at 0x0*80001024 \(page\+0x24\)", str(outcome.error)
    )
    # What was seen up to there is kept.
    assert outcome.document is not None and not outcome.document["complete"]
    assert outcome.document["events"]["fence"]["all"] == 1
