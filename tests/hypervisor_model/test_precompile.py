"""Which models are compiled ahead of their use, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hypervisor_model import jit, precompile
from hypervisor_model.errors import UsageError

ROOT = Path(precompile.__file__).parents[1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The names of the models that processes were started for; every cache folder is empty."""
    names: list[list[str]] = []

    def run(command: list[str], **_others: Any) -> None:
        names.append(command[command.index("hypervisor_model.precompile") + 1 :])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(jit, "cache_folder", lambda module: tmp_path / module)
    return names


def keep(folder: Path, module: str) -> None:
    place = folder / module / "package_0123"
    place.mkdir(parents=True)
    (place / "module.kernel-1.py311.1.nbc").touch()


def test_only_what_the_cache_lacks_is_compiled_ahead(
    started: list[list[str]], tmp_path: Path
) -> None:
    precompile.ahead(["shadow:roots=4", "lsp", "shadow:roots=2", "oos"])
    assert started.pop() == ["shadow", "lsp", "oos", "legality"]
    keep(tmp_path, "hypervisor_model.policies.shadow")
    keep(tmp_path, "hypervisor_model.legality")
    precompile.ahead(["shadow", "lsp", "oos"])
    assert started.pop() == ["lsp", "oos"]
    # A single one is compiled where it is used.
    precompile.ahead(["shadow", "lsp"])
    assert started == []


def test_without_a_cache_nothing_can_be_compiled_ahead(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda module: None)
    precompile.ahead(["shadow", "lsp"])
    assert started == []


def test_a_policy_that_is_unknown_here_is_left_to_who_makes_it(started: list[list[str]]) -> None:
    precompile.ahead(["lazy", "shadow"])
    assert started == [["shadow", "legality"]]


PROGRAM = """
from hypervisor_model import precompile
names = ["native", "legality", "nested"]
cold = [precompile._is_cold(name) for name in names]
precompile.ahead(["native"])
print(cold, [precompile._is_cold(name) for name in names])
"""


def test_what_is_compiled_ahead_is_found_in_the_cache(tmp_path: Path) -> None:
    """The real thing: the processes write where the program that started them looks."""
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (answer.stdout, answer.stderr) == ("[True, True, True] [False, False, True]\n", "")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no policy is called 'lazy'"):
        precompile.main(["lazy"])
