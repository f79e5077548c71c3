"""Where compiled code is kept, and what happens if it can be kept nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import hypervisor_model
from hypervisor_model import jit

PACKAGE = Path(hypervisor_model.__file__).parent
PROGRAM = (
    "from hypervisor_model.mmu import Mmu\n"
    "from hypervisor_model.memory import GuestMemory\n"
    "from hypervisor_model.isa import atp, causes\n"
    "memory = GuestMemory(1 << 31, 1 << 12)\n"
    "memory.write(1 << 31, 7)\n"
    "print(memory.read(1 << 31), causes.page_fault(0))\n"
)


class Installed:
    """A copy of the package that cannot be written to, for a user whom no list of users has."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "installed"
        self.folder = folder
        shutil.copytree(
            PACKAGE, self.root / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        # A file in its place: no one can make the folder, not even root.
        (self.root / PACKAGE.name / "__pycache__").write_text("")

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.root)}
        program = f"import os; os.path.expanduser = lambda path: path\n{PROGRAM}"
        answer = subprocess.run(
            [sys.executable, "-B", "-c", program],
            env=kept | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (answer.returncode, answer.stdout) == (0, "7 13\n"), answer.stderr
        return answer

    def compiled(self) -> set[Path]:
        """The folders that have compiled code."""
        return {path.parents[3] for path in self.folder.rglob("*.nbc")}


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_with_no_place_to_keep_code_it_is_compiled_and_one_line_says_so(
    installed: Installed,
) -> None:
    said = installed.run().stderr.splitlines()
    assert len(said) == 1
    assert "cannot be kept" in said[0]
    assert "Set COSIM_CACHE to a folder" in said[0]
    assert installed.compiled() == set()


@pytest.mark.parametrize("variable", ["COSIM_CACHE", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_each_of_these_says_where_code_is_kept(installed: Installed, variable: str) -> None:
    place = installed.folder / "cache"
    assert installed.run(**{variable: str(place)}).stderr == ""
    below = place / "lsp-cosim" if variable == "XDG_CACHE_HOME" else place
    assert installed.compiled() == {below / "kernels"}


def test_a_place_that_cannot_be_written_to_is_passed_over(installed: Installed) -> None:
    file = installed.folder / "file"
    file.write_text("")
    place = installed.folder / "cache"
    variables = {"NUMBA_CACHE_DIR": str(file / "x"), "COSIM_CACHE": str(place)}
    assert installed.run(**variables).stderr == ""
    assert installed.compiled() == {place / "kernels"}


def test_what_only_compiling_needs_is_not_loaded_with_code_that_was_kept() -> None:
    program = f"{PROGRAM}import sys\nprint('numba.np.npyimpl' in sys.modules)\n"
    words = [sys.executable, "-c", program]
    # The first one compiles what an earlier run of the tests has not.
    said = [subprocess.check_output(words, text=True, timeout=300) for _ in range(2)]
    assert said[1] == "7 13\nFalse\n"


@jit.inner
def _thrice(value: int) -> int:
    return 3 * value


@jit.inlined
def _twice(value: int) -> int:
    return _thrice(value) - value


@jit.kernel
def _sixfold(value: int) -> int:
    return _twice(_thrice(value))


def test_inlined_code_must_become_part_of_its_callers_and_only_that() -> None:
    assert (_twice(4), _sixfold(4)) == (8, 24)
    # What a function calls does not take this over from it.
    for function, is_inlined in ((_twice, True), (_thrice, False)):
        inner = cast(Any, function).inner
        # Its caller may come from an earlier run of the tests.
        inner.compile("int64(int64)")
        (code,) = inner.inspect_llvm().values()
        assert ("alwaysinline" in code) == is_inlined, function.__name__
