"""The benchmarks start: they are no tests, so nothing else would notice that one does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cosim.paths import SOURCE

BENCHMARKS = sorted((SOURCE / "scripts").glob("bench_*.py"))


@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda path: path.stem)
def test_it_says_what_it_takes(script: Path) -> None:
    said = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert "--json" in said.stdout
