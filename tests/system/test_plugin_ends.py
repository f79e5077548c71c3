"""How a run through the plugin ends early, and what QEMU's refusals come with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Command, Home, run

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("panic", "Kernel panic - not syncing: no init"),
        ("panic_spins", "panic: could not find virtio disk; give it a disk with --disk"),
    ],
)
def test_a_panic_ends_the_run_at_once(name: str, said: str, tmp_path: Path) -> None:
    kernel = bare_kernel.build(name, tmp_path, bare_kernel.M_MODE)
    words = ["capture", "--kernel", str(kernel), "--bios", "none", "--memory", "128M"]
    words += ["--backend", "plugin", "--from", "boot", "--time-limit", "100"]
    home = Home(tmp_path / "home")
    ended = run([*words, "-o", str(tmp_path / "t")], home.environment())
    assert ended.status == 3, ended.stdout + ended.stderr
    assert ended.line.startswith(f"the guest panicked: {said}"), ended.stderr
    # The console's log says why; the recording is of no use any more.
    assert home.sessions() and home.leftovers() == []


def test_many_marks_are_few_batches(tmp_path: Path) -> None:
    kernel = bare_kernel.build("many_marks", tmp_path)
    words = ["capture", "--kernel", str(kernel), "--memory", "128M", "--backend", "plugin"]
    words += [*bare_kernel.REGION, "--json", "--logs", str(tmp_path / "logs")]
    ended = run([*words, "-o", str(tmp_path / "t")], Home(tmp_path / "home").environment())
    assert ended.status == 0, ended.stdout + ended.stderr
    assert ended.document["events"]["mark"] == 5000 + 1
    logs = tmp_path / "logs"
    assert (logs / "plugin.console.log").is_file(), "capture keeps its logs, too"
    assert logs.stat().st_mode & 0o777 == 0o700
    assert not list(logs.glob("*.bin"))


@pytest.mark.parametrize(
    ("name", "start", "memory", "hint"),
    [
        ("machine_mode", bare_kernel.M_MODE, "128M", "with --bios none"),
        ("many_marks", bare_kernel.S_MODE, "3M", "3 MiB of RAM may be too little"),
    ],
)
def test_a_hint_stands_beside_the_line_of_qemu(
    name: str, start: int, memory: str, hint: str, tmp_path: Path
) -> None:
    kernel = bare_kernel.build(name, tmp_path, start)
    words = ["capture", "--kernel", str(kernel), "--memory", memory, "--backend", "plugin"]
    ended = run([*words, "-o", str(tmp_path / "t")], Home(tmp_path / "home").environment())
    assert ended.status == 3
    assert "QEMU refused to start (status 1): " in ended.line and hint in ended.line


def test_the_socket_for_gdb_is_private(tmp_path: Path) -> None:
    kernel = bare_kernel.build("many_marks", tmp_path)
    at = tmp_path / "gdb.sock"
    words = ["run", "--kernel", str(kernel), "--memory", "128M", "--backend", "plugin"]
    words += ["--gdb", str(at)]
    before = os.umask(0)
    try:
        with Command(words, Home(tmp_path / "home").environment()) as command:
            command.until(at.is_socket, "a socket for gdb")
            assert at.stat().st_mode & 0o177 == 0
    finally:
        os.umask(before)
