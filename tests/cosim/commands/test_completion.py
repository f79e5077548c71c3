"""What shells complete, asked as they ask, and that the README's lines turn it on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosim.paths import SOURCE

_README = (SOURCE / "README.md").read_text()
_COMMAND = "import sys; sys.argv[0] = 'cosim'; from cosim.start import main; main()"


def _asked(**variables: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", _COMMAND],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def _completed(line: str) -> set[str]:
    words = line.split(" ")
    said = _asked(COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), _COSIM_COMPLETE="bash_complete")
    return set(said.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_readme_says_how(shell: str) -> None:
    assert f"_COSIM_COMPLETE={shell}_source cosim" in _README


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_it_prints_a_script(shell: str) -> None:
    script = _asked(_COSIM_COMPLETE=f"{shell}_source")
    assert f"_COSIM_COMPLETE={shell}_complete" in script
    assert "complete" in script and "cosim" in script


def test_commands_options_and_guests_are_completed() -> None:
    assert _completed("cosim re") == {"plain,replay", "plain,reproduce", "plain,report"}
    assert "plain,--backend" in _completed("cosim run --b")
    assert _completed("cosim run mi") == {"plain,micro", "plain,micro-m"}
    assert _completed("cosim guest fetch li") == {"plain,linux"}
    assert _completed("cosim guest b") == {"plain,build"}


def test_other_than_guests_files_are_asked_for() -> None:
    assert _completed("cosim run scripts/ru") == {"file,scripts/ru"}


def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "cosim"
    command.write_text(f"#!{sys.executable}\nimport sys\n{_COMMAND}\n")
    command.chmod(0o755)
    # What bash does when TAB is pressed.
    script = (
        'eval "$(_COSIM_COMPLETE=bash_source cosim)"\n'
        "COMP_WORDS=(cosim run wor) COMP_CWORD=2\n"
        '_cosim_completion cosim\necho "${COMPREPLY[@]}"\n'
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    answer = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.stdout.strip() == "workloads", answer.stderr
