"""Which models are compiled ahead of their use, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor_model import jit, precompile
from hypervisor_model.errors import UsageError

ROOT = Path(precompile.__file__).parents[1]


def keep(folder: Path, module: str) -> None:
    place = folder / module / "package_0123"
    place.mkdir(parents=True)
    (place / "module.kernel-1.py311.1.nbc").touch()


def test_what_the_cache_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda module: tmp_path / module)
    specs = ["shadow:roots=4", "lsp", "shadow:roots=2", "oos"]
    assert precompile.missing(specs) == ["shadow", "lsp", "oos", "legality"]
    keep(tmp_path, "hypervisor_model.policies.shadow")
    keep(tmp_path, "hypervisor_model.legality")
    assert precompile.missing(specs) == ["lsp", "oos"]
    # A policy that is unknown here is left to the one who makes it.
    assert precompile.missing(["lazy", "shadow"]) == []


def test_without_a_cache_nothing_is_missing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "cache_folder", lambda module: None)
    assert precompile.missing(["shadow", "lsp"]) == []


PROGRAM = """
from cosim.models import model_options
from hypervisor_model import precompile
names = ["native", "legality", "nested"]
cold = [precompile._is_cold(name) for name in names]
model_options.compile_missing(["native"])
print(cold, [precompile._is_cold(name) for name in names])
"""


def test_what_is_compiled_side_by_side_is_found_in_the_cache(tmp_path: Path) -> None:
    """The processes write where the program that started them looks."""
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
