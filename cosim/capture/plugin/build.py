"""Compile the plugin with this machine's compiler, once a source and interface."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import tempfile
from pathlib import Path

from cosim import paths
from cosim.errors import MissingTool, StorageError
from cosim.machine import tools

API_VERSION = 4
"""The version of QEMU's plugin interface that the plugin is written against."""

_SOURCE = Path(__file__).resolve().parent
_FLAGS = ("-std=gnu11", "-O2", "-flto", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden")
_SECONDS = 120.0


def build() -> Path:
    """The compiled plugin, from the cache or compiled now.

    :raise MissingTool: it has to be compiled, and no C compiler is there or does it.
    :raise StorageError: the cache cannot be written.
    """
    sources = sorted(_SOURCE.glob("*.c"))
    digest = hashlib.sha256(f"{API_VERSION} {platform.machine()} {_FLAGS}".encode())
    for file in sorted([*sources, *_SOURCE.glob("*.h")]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = paths.cache() / "plugin"
    library = folder / f"cosim-{digest.hexdigest()[:16]}.so"
    if library.is_file():
        return library
    compiler = tools.host_compiler()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / library.name
            _compile(compiler.path, sources, fresh)
            fresh.replace(library)
    except OSError as error:
        raise StorageError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return library


def _compile(compiler: Path, sources: list[Path], library: Path) -> None:
    words = [str(compiler), *_FLAGS, "-o", str(library), *map(str, sources)]
    try:
        answer = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MissingTool(
            f"{compiler} does not compile the plugin within {_SECONDS:.0f} s"
        ) from None
    if answer.returncode != 0:
        said = next((x for x in answer.stderr.splitlines() if "error" in x), "it says nothing")
        raise MissingTool(f"{compiler} does not compile the TCG plugin: {said.strip()}")


def check_loads(qemu: Path, library: Path) -> None:
    """Have the emulator load the plugin for a moment.

    :raise MissingTool: its plugin interface is too old or missing; one line with what it said.
    """
    # The plugin says that it was loaded and then refuses, so QEMU ends before it makes a machine.
    words = [str(qemu), "-machine", "none", "-nodefaults", "-display", "none"]
    words += ["-plugin", f"file={str(library).replace(',', ',,')},probe=on"]
    try:
        answer = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"{qemu} does not run: {error}") from None
    if "cosim plugin: loaded" in answer.stdout:
        return
    said = next(iter(answer.stderr.strip().splitlines()), "it says nothing")
    raise MissingTool(
        f"{qemu} does not load the TCG plugin (interface version {API_VERSION}; QEMU 10 has it): "
        f"{said.removeprefix(f'{qemu}: ')}"
    )
