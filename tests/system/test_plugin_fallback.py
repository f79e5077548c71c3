"""If the plugin cannot be had, gdb stands in for it, one line says so, and results say gdb."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.system.cosim_process import Ended, Home, run

pytestmark = pytest.mark.system

SHORT = ("--workload", "scenario=lsp-bench pages=16 ops=60 share=50")
COST = "; using gdb instead, which is about a hundred times slower and sees no accesses"
QEMU = "qemu-system-riscv64"

# What QEMU 7.2 answers to a plugin of interface version 4.
OLD_QEMU = """
for word; do
    if [ "$word" = -plugin ]; then
        echo "TCG plugin requires version 4, but this QEMU supports only up to 1" >&2
        exit 1
    fi
done
exec {qemu} "$@"
"""


def _script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def _home(folder: Path, lacking: str) -> tuple[Home, dict[str, str]]:
    """A home of the micro guest, and an environment in which the plugin cannot be had."""
    home = Home(folder / "home", "micro", plugin=False)
    tools = folder / "bin"
    tools.mkdir()
    for name in (QEMU, "gdb-multiarch"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    environment = {**home.environment(), "PATH": str(tools)}
    if lacking == "headers":
        version = '[ "$1" = --version ] && echo cc 1.0 && exit'
        _script(tools / "cc", f"{version}\necho error: hm >&2; exit 1")
    elif lacking == "qemu":
        compiler = shutil.which("cc")
        qemu = shutil.which(QEMU)
        assert compiler is not None and qemu is not None
        (tools / QEMU).unlink()
        _script(tools / QEMU, OLD_QEMU.format(qemu=qemu))
        # The real compiler wants its own tools on PATH.
        _script(tools / "cc", f'PATH="{Path(compiler).parent}" exec {compiler} "$@"')
    return home, environment


REASONS = {
    "compiler": "no C compiler on PATH: run scripts/setup, or install gcc and libc6-dev",
    "headers": "cannot compile the TCG plugin: error: hm",
    "qemu": "cannot load the TCG plugin, which needs interface version 4 (QEMU 10): "
    "TCG plugin requires version 4",
}


def _fell_back(ended: Ended, lacking: str) -> None:
    assert ended.status == 0, ended.stderr
    assert REASONS[lacking] in ended.line
    assert ended.line.endswith(COST)


@pytest.mark.parametrize("lacking", REASONS)
def test_gdb_stands_in(lacking: str, tmp_path: Path) -> None:
    _, environment = _home(tmp_path, lacking)
    ran = run(
        ["run", "micro", *SHORT, "--backend", "plugin", "--model", "native", "--json"], environment
    )
    _fell_back(ran, lacking)
    assert (ran.document["backend"], ran.document["accesses"]) == ("gdb", "none")
    assert ran.document["events"]["pte_write"] == 30


@pytest.mark.parametrize("words", [[], ["--backend", "plugin"], ["--no-accesses"]])
def test_a_capture_through_gdb_says_so(words: list[str], tmp_path: Path) -> None:
    _, environment = _home(tmp_path, "compiler")
    trace = tmp_path / "t"
    ended = run(["capture", "micro", *SHORT, *words, "-o", trace, "--json"], environment)
    _fell_back(ended, "compiler")
    assert ended.document["backend"] == "gdb"
    told = run(["trace", "info", trace, "--json"], environment).document
    assert (told["origin"]["backend"], told["origin"]["stream"]["accesses"]) == ("gdb", "none")


def test_the_runs_of_a_file_say_it_once(tmp_path: Path) -> None:
    _, environment = _home(tmp_path, "compiler")
    file = tmp_path / "runs.toml"
    runs = "".join(f'[[run]]\nname = "{name}"\n' for name in "ab")
    file.write_text(f'guest = "micro"\nworkload = "{SHORT[1]}"\nmodels = ["native"]\n{runs}')
    ended = run(["capture", file, "-o", tmp_path / "out", "--json"], environment)
    assert ended.status == 0, ended.stderr
    assert ended.stderr.count(COST) == 1
    for name in "ab":
        result = json.loads((tmp_path / "out" / name / "result.json").read_text())
        assert result["backend"] == "gdb"


def test_a_file_has_the_default_of_the_command(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "micro")
    file = tmp_path / "runs.toml"
    file.write_text(f'guest = "micro"\nworkload = "{SHORT[1]}"\nmodels = ["native"]\n')
    for command, backend in (("capture", "plugin"), ("run", "gdb+plugin")):
        ended = run([command, file, "-o", tmp_path / command, "--json"], home.environment())
        assert ended.status == 0, ended.stderr
        result = json.loads((tmp_path / command / "runs" / "result.json").read_text())
        assert result["backend"] == backend


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["run", "--filter", "8"], "--filter"),
        (["capture", "--filter", "8", "-o", "t"], "--filter"),
        (["run", "--gdb", "gdb.sock"], "--gdb"),
    ],
)
def test_what_gdb_cannot_do_is_refused(words: list[str], what: str, tmp_path: Path) -> None:
    home, environment = _home(tmp_path, "compiler")
    ended = run([words[0], "micro", "--backend", "plugin", *words[1:]], environment)
    assert (ended.status, ended.stdout) == (3, "")
    said = f"{REASONS['compiler']}; gdb cannot stand in for it: {what} needs the plugin"
    assert ended.line == said
    assert home.sessions() == []


def test_accesses_that_a_file_asks_for(tmp_path: Path) -> None:
    _, environment = _home(tmp_path, "compiler")
    file = tmp_path / "runs.toml"
    file.write_text('guest = "micro"\nbackend = "plugin"\naccesses = true\n')
    ended = run(["run", file, "-o", tmp_path / "out", "--json"], environment)
    assert ended.status == 3
    assert "accesses needs the plugin" in ended.document["runs"][0]["error"]


def test_a_plugin_that_was_compiled_needs_no_compiler(tmp_path: Path) -> None:
    home, without = _home(tmp_path, "compiler")
    words = ["capture", "micro", *SHORT, "--json", "-o"]
    first = run([*words, tmp_path / "a"], home.environment())
    second = run([*words, tmp_path / "b"], without)
    assert (second.status, second.stderr) == (0, "")
    assert second.document["backend"] == "plugin"
    assert second.document["events"] == first.document["events"]
