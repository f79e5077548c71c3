"""`pip install` of the built wheel, away from the checkout, by a user who may not read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cosim.paths import SOURCE

# Under a minute in all on two free cores; compiling is slower if they are shared.
pytestmark = [pytest.mark.system, pytest.mark.timeout(700)]

_NOBODY = 65534
_LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".venv",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.egg-info",
    "build",
    "dist",
    "_build",
)


@dataclass(frozen=True)
class Installed:
    """The files that were built, and a command that is installed from the wheel."""

    sdist: Path
    wheel: Path
    venv: Path
    home: Path

    def run(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a program of the new environment as a user without rights, in a home of its own."""
        root = os.geteuid() == 0
        drop = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] * root
        return subprocess.run(
            [*drop, str(self.venv / "bin" / command[0]), *command[1:]],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "TMPDIR": str(self.home)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """The wheel in a new environment.

    It is built from a copy of the checkout, which is gone before anything runs, so nothing can
    come from there.  Its dependencies are those that the wheel declares, from this environment.
    """
    # Not below pytest's own folder, which only the user of the tests may enter.
    with tempfile.TemporaryDirectory(prefix="cosim-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        source, out, venv, home = (folder / part for part in ("source", "dist", "venv", "home"))
        shutil.copytree(SOURCE, source, ignore=_LEFT_OUT)
        _manual_page(source)
        # The wheel is built from the sdist, so that the sdist is complete or this fails.
        _check([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)])
        shutil.rmtree(source)
        [sdist] = out.glob("*.tar.gz")
        [wheel] = out.glob("*.whl")

        _check([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        [packages] = venv.glob("lib/python3*/site-packages")
        _link_dependencies(wheel, packages)
        pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python")]
        _check([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)])
        # Also checks the version ranges that the wheel declares.
        _check([*pip, "check"])

        home.mkdir()
        if os.geteuid() == 0:
            os.chown(home, _NOBODY, _NOBODY)
        yield Installed(sdist, wheel, venv, home)


def test_both_hold_the_licence_and_no_machine_code(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        in_wheel = wheel.namelist()
        [text] = [name for name in in_wheel if name.endswith(".dist-info/METADATA")]
        about = wheel.read(text).decode()
    with tarfile.open(installed.sdist) as sdist:
        in_sdist = sdist.getnames()
    assert "License-Expression: MIT" in about
    for names in (in_wheel, in_sdist):
        assert any(name.endswith("/LICENSE") for name in names)
        assert not [name for name in names if re.search(r"\.(so|o|pyc|nbi|nbc)$", name)]
        assert any(name.endswith("man1/cosim-test.1") or "man/cosim" in name for name in names)
    # Who has the sdist can carry on: tests, documentation and the two commands are in it.
    short = {name.partition("/")[2] for name in in_sdist}
    wanted = {"CONTRIBUTING.md", "scripts/test", "tests/system/test_wheel.py", "docs/trace.md"}
    assert wanted <= short
    assert not [name for name in in_wheel if name.startswith(("tests/", "docs/", "scripts/"))]


def test_the_packages_are_those_of_the_wheel(installed: Installed) -> None:
    answer = installed.run(
        "python",
        "-c",
        "import cosim, guest, hypervisor_model as m\n"
        "print(*(module.__path__[0] for module in (cosim, guest, m)), sep='\\n')",
    )
    assert answer.returncode == 0, answer.stderr
    places = answer.stdout.split()
    assert len(places) == 3
    assert all(place.startswith(str(installed.venv)) for place in places)


def test_it_says_its_version(installed: Installed) -> None:
    answer = installed.run("cosim", "--version")
    assert answer.returncode == 0, answer.stderr
    assert metadata.version("lsp-cosim") in answer.stdout


def test_a_guest_is_built_and_run(installed: Installed) -> None:
    # One model: compiling all of them takes a minute. This takes about 25 s, most of it compiling.
    built = installed.run("cosim", "guest", "build", "micro")
    assert built.returncode == 0, built.stderr
    ran = installed.run("cosim", "run", "micro", "--model", "native", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["complete"] and result["events"]["fence"]
    assert result["translations"]["native"]["illegal"] == 0
    # What was compiled is kept for the next run: in the user's cache, or beside the source if this
    # is the owner of the environment.
    cache = installed.home / ".cache" / "lsp-cosim"
    assert any((cache if os.geteuid() == 0 else installed.venv).rglob("*.nbi"))

    (installed.home / "result.json").write_text(ran.stdout)
    page = installed.run("cosim", "report", "result.json", "-o", "page.html")
    assert page.returncode == 0, page.stderr
    assert "<style>" in (installed.home / "page.html").read_text()


def test_the_plugin_is_compiled_from_the_wheel(installed: Installed) -> None:
    installed.run("cosim", "guest", "build", "micro")
    caught = installed.run("cosim", "capture", "micro", "--backend", "plugin", "-o", "trace")
    assert caught.returncode == 0, caught.stderr
    checked = installed.run("cosim", "trace", "verify", "trace")
    assert checked.returncode == 0, checked.stderr


def _check(command: list[str]) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert answer.returncode == 0, f"{command}:\n{answer.stdout}{answer.stderr}"


def _manual_page(source: Path) -> None:
    """Put a manual page where scripts/docs puts those of the commands."""
    (source / "man").mkdir(exist_ok=True)
    (source / "man" / "cosim-test.1").write_text(".TH cosim-test 1\n")


def _link_dependencies(wheel: Path, packages: Path) -> None:
    """Put what ``wheel`` declares as its dependencies, and what those need, into ``packages``."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist:" in line]
    done: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.name in done:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        done.add(requirement.name)
        distribution = metadata.distribution(requirement.name)
        wanted += distribution.requires or []
        for file in distribution.files or []:
            if ".." in file.parts:
                continue
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(Path(str(distribution.locate_file(file))), target)


def _link(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():
        return
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
