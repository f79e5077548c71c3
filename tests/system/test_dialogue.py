"""A dialogue on the command line, with a guest that takes one byte at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

TEXT = "echo abcdefghijklmnopqrstuvwxyz; poweroff"


@pytest.mark.parametrize("backend", ["plugin", "gdb"])
def test_a_guest_takes_the_whole_line(backend: str, tmp_path: Path) -> None:
    kernel = bare_kernel.build("typed", tmp_path, bare_kernel.M_MODE)
    ended = run(
        [
            *("run", "--kernel", kernel, "--bios", "none", "--memory", "64M", "--model", "native"),
            *("--backend", backend, "--json", "--logs", tmp_path / "logs"),
            *("--expect", "ready> ", "--send", TEXT + r"\n"),
            *("--expect", "took: ", "--send", ""),
        ],
        Home(tmp_path / "home").environment(),
    )
    assert ended.status == 0, ended.stderr
    # Nothing about characters that were not taken.
    assert ended.stderr == ""
    assert ended.document["events"]["fence"]["all"] == 2
    logs = [path.read_text() for path in (tmp_path / "logs").glob("*.console.log")]
    assert logs and all(f"took: {TEXT}\n" in log for log in logs)
