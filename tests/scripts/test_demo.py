"""scripts/demo with impostors: the models are compiled while the guest is fetched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.scripts.test_setup import Sandbox

_DEMO = Path(__file__).parents[2] / "scripts" / "demo"


class Demo(Sandbox):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        script = self.root / "scripts" / "demo"
        script.write_bytes(_DEMO.read_bytes())
        script.chmod(0o755)

    def impostor(self, name: str, script: str) -> None:
        """Put an impostor into the virtual environment, which is there already."""
        folder = self.root / ".venv" / "bin"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\nlog() {{ echo "$*" >>{self.log}; }}\n{script}\n')
        (folder / name).chmod(0o755)

    def demo(self, *arguments: str) -> tuple[int, list[str]]:
        answer = subprocess.run(
            [str(self.root / "scripts" / "demo"), *arguments],
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert answer.stdout == ""
        return answer.returncode, self.log.read_text().splitlines()


@pytest.fixture
def box(tmp_path: Path) -> Demo:
    return Demo(tmp_path)


COMPILES = """case "$*" in *precompile*) log compiling; {} log compiled;; esac"""
META = """case "$1" in guest) {} log fetched;; run) log "$@";; esac"""


def test_compiling_and_fetching_go_on_side_by_side_and_the_run_waits_for_both(box: Demo) -> None:
    # Each waits for a sign of the other, so that neither can come first as a whole.
    fetching = box.root / "fetching"
    wait = "for _ in 1 2 3 4 5 6 7 8 9 10; do if {}; then break; fi; sleep 1; done;"
    box.impostor("python", COMPILES.format(wait.format(f"[ -e {fetching} ]")))
    started = wait.format(f"grep -q compiling {box.log}")
    box.impostor("cosim", META.format(f"{started} : >{fetching};"))
    status, log = box.demo("--json")
    calls = [line for line in log if line in ("compiling", "compiled", "fetched")]
    assert status == 0
    assert calls[0] == "compiling" and set(calls[1:]) == {"compiled", "fetched"}
    assert log[-1] == "run linux --json"


def test_no_run_without_models(box: Demo) -> None:
    box.impostor("python", COMPILES.format("exit 1;"))
    box.impostor("cosim", META.format(""))
    status, log = box.demo()
    assert status == 3
    assert not any(line.startswith("run") for line in log)


def test_a_guest_that_cannot_be_fetched_ends_the_compiling(box: Demo) -> None:
    box.impostor("python", COMPILES.format("sleep 50;"))
    started = f"until grep -q compiling {box.log}; do sleep 0.1; done;"
    box.impostor("cosim", META.format(f"{started} exit 3;"))
    status, log = box.demo()
    assert status == 3
    assert "compiled" not in log
