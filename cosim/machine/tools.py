"""The programs that the tool drives: where they are, their versions, what they can do.

Programs are looked up on ``PATH`` when they are needed.  What a program can do is asked of the
program itself, once for each path; there is no table of versions.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cosim.errors import MissingTool, UsageError

QEMU = "qemu-system-riscv64"
QEMU_MINIMUM = (7, 2)
"""The oldest QEMU that the tool works with (Debian 12's)."""

_GDBS = ("gdb-multiarch", "riscv64-unknown-elf-gdb", "riscv64-linux-gnu-gdb", "gdb")
_CROSS_COMPILERS = ("riscv64-linux-gnu-gcc", "riscv64-unknown-linux-gnu-gcc")
_PROBE_SECONDS = 20.0
_HART = "/machine/soc0/harts[0]"
"""QEMU's name of the first hart of its ``virt`` machine."""


@dataclass(frozen=True)
class Tool:
    """A program found on ``PATH``; ``version`` in numbers, ``text`` as the program prints it."""

    path: Path
    version: tuple[int, ...]
    text: str


def qemu() -> Tool:
    """Return the emulator.

    :raises MissingTool: when it is missing, does not run, or is older than :data:`QEMU_MINIMUM`.
    """
    path = shutil.which(QEMU)
    if path is None:
        raise MissingTool(
            f"{QEMU} is not on PATH: run scripts/setup, or install Debian's qemu-system-riscv"
        )
    found = _ask(path)
    if found.version < QEMU_MINIMUM:
        raise MissingTool(
            f"{path} is QEMU {_dotted(found.version)}, too old: "
            f"{_dotted(QEMU_MINIMUM)} or newer is needed; run scripts/setup"
        )
    return found


@cache
def qemu_has_cpu_option(path: Path, option: str) -> bool:
    """Return True if the emulator at ``path`` takes ``-cpu rv64,OPTION`` (such as ``svade=on``).

    :raises MissingTool: when the emulator does not run.
    """
    # This machine never starts.  QEMU applies the options of the CPU, then reads "quit".
    answer = _run(
        [
            *(str(path), "-M", "virt", "-cpu", f"rv64,{option}", "-m", "128M", "-bios", "none"),
            *("-S", "-display", "none", "-nodefaults", "-monitor", "stdio"),
        ],
        text="quit\n",
    )
    return answer.returncode == 0


@cache
def qemu_traces(path: Path, event: str) -> bool:
    """Return True if the emulator at ``path`` has the trace event ``event``.

    :raises MissingTool: when the emulator does not run.
    """
    return event in _run([str(path), "-trace", "help"]).stdout.split()


@cache
def qemu_cpu_properties(path: Path, cpu: str, names: tuple[str, ...]) -> Mapping[str, bool | int]:
    """Ask the emulator for the CPU properties ``names`` of ``-cpu CPU``.

    A property that the emulator does not know is left out: that extension is not there.

    :raises UsageError: when the emulator refuses ``cpu``.
    :raises MissingTool: when the emulator does not run.
    """
    # query-cpu-model-expansion would need typed values, but -cpu takes text (on, yes, true); and
    # QEMU 7.2 does not have it.  So QEMU parses the text for a machine that never starts.
    gets = [
        {"execute": "qom-get", "id": name, "arguments": {"path": _HART, "property": name}}
        for name in names
    ]
    requests = [{"execute": "qmp_capabilities"}, *gets, {"execute": "quit"}]
    answer = _run(
        [
            *(str(path), "-M", "virt", "-cpu", cpu, "-m", "128M", "-bios", "none"),
            *("-S", "-display", "none", "-nodefaults", "-qmp", "stdio"),
        ],
        text="".join(json.dumps(request) + "\n" for request in requests),
    )
    if answer.returncode > 0:
        lines = [line for line in answer.stderr.splitlines() if "warning" not in line]
        said = lines[0].removeprefix(f"{path.name}: ") if lines else "it says nothing"
        if os.strerror(errno.ENOMEM) in said:
            raise MissingTool(
                f"{path.name} does not run: {said}; free memory, or raise its limit (ulimit -v)"
            )
        raise UsageError(f"QEMU refuses -cpu {cpu}: {said}")
    return _properties(answer.stdout, names)


def _properties(replies: str, names: tuple[str, ...]) -> dict[str, bool | int]:
    """Return the values of ``names`` in QMP's ``replies``, one reply in each line."""
    found = {}
    for line in replies.splitlines():
        try:
            reply: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(reply, dict) and isinstance(reply.get("return"), int):
            found[reply.get("id")] = reply["return"]
    return {name: found[name] for name in names if name in found}


@cache
def qemu_has_plugins(path: Path) -> bool:
    """Return True if the emulator at ``path`` was built with TCG plugins.

    :raises MissingTool: when the emulator does not run.
    """
    return "-plugin" in _run([str(path), "-help"]).stdout


def firmware(emulator: Tool) -> Path | None:
    """Return the OpenSBI that ``emulator`` loads by default, or None if it has none."""
    folders = _run([str(emulator.path), "-L", "help"]).stdout.split("\n")
    files = (Path(folder) / "opensbi-riscv64-generic-fw_dynamic.bin" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def default_cpu(emulator: Tool) -> str:
    """Return the ``-cpu`` of a guest that names none.

    It has Svade if QEMU can turn it on.  Then the guest sets accessed and dirty bits itself.  An
    update by hardware would change an entry in memory without an instruction to intercept.
    """
    return "rv64,svade=on" if qemu_has_cpu_option(emulator.path, "svade=on") else "rv64"


def gdb() -> Tool:
    """Return a gdb that knows RISC-V.

    :raises MissingTool: when none is on ``PATH``.
    """
    without = None
    for name in _GDBS:
        path = shutil.which(name)
        if path is None:
            continue
        if _gdb_has_riscv(path):
            return _ask(path)
        without = path
    hint = "run scripts/setup, or install Debian's gdb-multiarch"
    if without is not None:
        raise MissingTool(f"{without} does not know RISC-V: {hint}")
    raise MissingTool(f"gdb-multiarch is not on PATH: {hint}")


def cross_compiler() -> Tool:
    """Return the C compiler for code that runs inside a guest.

    :raises MissingTool: when none is on ``PATH``.
    """
    for name in _CROSS_COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return _ask(path)
    raise MissingTool(
        f"{_CROSS_COMPILERS[0]} is not on PATH: run scripts/setup, or install Debian's "
        "gcc-riscv64-linux-gnu"
    )


def host_compiler() -> Tool:
    """Return the C compiler of this machine, for the TCG plugin.

    :raises MissingTool: when none is on ``PATH``.
    """
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path is not None:
            return _ask(path)
    raise MissingTool("no C compiler on PATH: run scripts/setup, or install gcc and libc6-dev")


@cache
def _gdb_has_riscv(path: str) -> bool:
    answer = _run([path, "-nx", "-batch", "-ex", "set architecture riscv:rv64"])
    return answer.returncode == 0 and "Undefined item" not in answer.stderr


@cache
def _ask(path: str) -> Tool:
    answer = _run([path, "--version"])
    text = next(iter((answer.stdout + answer.stderr).splitlines()), "")
    # "GNU gdb (Debian 13.1-3) 13.1": take the last number outside brackets.
    numbers = re.findall(r"\d+(?:\.\d+)+", re.sub(r"\([^()]*\)", "", text))
    if answer.returncode != 0 or not numbers:
        raise MissingTool(f"{path} does not run: it answers --version with {text!r}")
    return Tool(Path(path), tuple(int(n) for n in numbers[-1].split(".")), text)


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except OSError as error:
        raise MissingTool(f"{command[0]} does not run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise MissingTool(f"{command[0]} does not answer: {' '.join(command)}") from None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
