"""The cross compiler for the programs and kernels that run inside a guest."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from cosim import paths
from cosim.errors import EnvironmentFault
from cosim.machine import tools

_FLAGS = """
    -O2 -g -Wall -Wextra -Werror -Wno-unused-function -std=gnu11
    -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector
    -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-tree-loop-distribute-patterns
    -mabi=lp64d -mcmodel=medany -mno-relax -Wl,--no-relax -Wl,--build-id=none
"""
"""Without unwind tables, what gdb needs to find callers is in .debug_frame, which is kept."""
_HOSTED_FLAGS = """
    -O2 -s -Wall -Wextra -Werror -std=gnu11 -static -march=rv64gc -mabi=lp64d
    -ffp-contract=off -Wl,--build-id=none
"""
"""a*b+c is not contracted, so the programs' sums are the same on every machine."""


def build(
    output: Path, sources: Sequence[Path], script: Path, march: str = "rv64gc", extra: str = ""
) -> None:
    """Compile and link ``sources`` with the linker script ``script`` into ``output``.

    :param march: the instruction set that the code may use.
    :param extra: further flags.
    :raises MissingTool: when there is no cross compiler.
    :raises EnvironmentFault: when it refuses the sources.
    """
    flags = [*_FLAGS.split(), f"-march={march}", *extra.split(), f"-Wl,-T,{script}"]
    # The debug information names the sources from the checkout on, because a guest in the cache
    # may come from another checkout.
    _compile(output, [*flags, f"-fdebug-prefix-map={paths.SOURCE}=."], sources)


def build_hosted(output: Path, sources: Sequence[Path], extra: str = "") -> None:
    """Compile and link ``sources`` into ``output``, a static Linux program with the C library.

    :param extra: further flags.
    :raises MissingTool: when there is no cross compiler.
    :raises EnvironmentFault: when it refuses the sources.
    """
    _compile(output, [*_HOSTED_FLAGS.split(), *extra.split()], sources, "-lm")


def _compile(output: Path, flags: Sequence[str], sources: Sequence[Path], *libraries: str) -> None:
    compiler = tools.cross_compiler()
    command = [str(compiler.path), *flags, *map(str, sources), *libraries]
    command += ["-o", str(output.absolute())]
    answer = subprocess.run(
        command, cwd=paths.SOURCE, capture_output=True, text=True, timeout=120, check=False
    )
    if answer.returncode != 0:
        lines = [line for line in answer.stderr.splitlines() if "error" in line] or ["no reason"]
        raise EnvironmentFault(f"{compiler.path.name} cannot build {output.name}: {lines[0]}")
