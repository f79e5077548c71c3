"""Compiling the models in other processes: nothing of it outlives an interruption."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cosim.models import model_options


class Interrupted(subprocess.Popen[bytes]):
    """A command whose first wait is interrupted when it has written ``pids``."""

    pids: Path
    waited_for = False

    def wait(self, timeout: float | None = None) -> int:
        if self.waited_for:
            return super().wait(timeout)
        self.waited_for = True
        while not self.pids.exists():
            assert self.poll() is None
            time.sleep(0.01)
        raise KeyboardInterrupt


@pytest.mark.timeout(60)
def test_an_interruption_ends_what_compiles_and_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "pids"
    monkeypatch.setattr(Interrupted, "pids", said, raising=False)
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    line = f"sleep 1000 & echo $$ $! > {said}.new; mv {said}.new {said}; wait"
    with pytest.raises(KeyboardInterrupt):
        model_options._run_alone(["sh", "-c", line])
    for pid in map(int, said.read_text().split()):
        while _runs(pid):
            time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Return True if there is such a process, and it has not ended yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
