"""A guest that stops gdb too often: the user is told early, and told what to do instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


def test_a_session_that_would_take_long_says_so_at_its_start(tmp_path: Path) -> None:
    kernel = bare_kernel.build("many_stops", tmp_path)
    words: list[str | Path] = ["capture", "--kernel", kernel, "--memory", "128M"]
    words += ["--backend", "gdb", "--from", "_start", "--time-limit", "24"]
    ended = run([*words, "--json", "-o", tmp_path / "trace"], Home(tmp_path / "home").environment())
    first = ended.stderr.splitlines()[0]
    assert re.fullmatch(
        r"cosim: gdb stops the guest [\d,]+ times a second; at this rate its recording ends in "
        r"about \d+ min, and --time-limit leaves \d+ s; --backend plugin sees the same events in "
        r"seconds",
        first,
    )
    assert ended.status == 3
    assert not ended.document["complete"]
