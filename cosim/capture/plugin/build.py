"""Compile the plugin with this machine's compiler, once for each version of its source."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from cosim import paths
from cosim.capture.plugin import event_header
from cosim.errors import MissingTool, StorageError
from cosim.machine import tools

API_VERSION = 4
"""The version of QEMU's plugin interface that the plugin uses."""

_SOURCE = Path(__file__).resolve().parent
_FLAGS = ("-std=gnu11", "-O2", "-flto", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden")
_SECONDS = 120.0


def build() -> Path:
    """Return the compiled plugin, from the cache or compiled now.

    :raises MissingTool: when it has to be compiled, and no C compiler is found or it fails.
    :raises StorageError: when the cache cannot be written.
    """
    sources = sorted(_SOURCE.glob("*.c"))
    header = event_header.header()
    digest = hashlib.sha256(f"{API_VERSION} {platform.machine()} {_FLAGS}".encode())
    digest.update(header.encode())
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
            (Path(scratch) / event_header.NAME).write_text(header)
            fresh = Path(scratch) / library.name
            _compile(compiler.path, [f"-I{scratch}", *map(str, sources)], fresh)
            fresh.replace(library)
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or folder}: {error.strerror}; "
            "free space, or choose a folder with COSIM_CACHE"
        ) from None
    return library


def _compile(compiler: Path, arguments: list[str], library: Path) -> None:
    words = [str(compiler), *_FLAGS, "-o", str(library), *arguments]
    try:
        answer = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MissingTool(
            f"{compiler} did not compile the TCG plugin within {_SECONDS:.0f} s"
        ) from None
    full = os.strerror(errno.ENOSPC)
    if answer.returncode != 0 and full in answer.stderr:
        raise StorageError(
            f"cannot write the compiled TCG plugin to {library.parent}: {full}; "
            "free space, or choose a folder with COSIM_CACHE"
        )
    if answer.returncode != 0:
        said = next((x for x in answer.stderr.splitlines() if "error" in x), "no message")
        raise MissingTool(f"{compiler} cannot compile the TCG plugin: {said.strip()}")


@cache
def check_loads(qemu: Path, library: Path) -> None:
    """Check that the emulator loads the plugin.

    :raises MissingTool: when its plugin interface is too old or missing; quotes the emulator.
    """
    # With probe=on the plugin prints a line and then refuses, so QEMU ends without a machine.
    words = [str(qemu), "-machine", "none", "-nodefaults", "-display", "none"]
    words += ["-plugin", f"file={str(library).replace(',', ',,')},probe=on"]
    try:
        answer = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(f"{qemu} cannot be run: {error}") from None
    if "cosim plugin: loaded" in answer.stdout:
        return
    said = next(iter(answer.stderr.strip().splitlines()), "no message")
    raise MissingTool(
        f"{qemu} cannot load the TCG plugin, "
        f"which needs interface version {API_VERSION} (QEMU 10): "
        f"{said.removeprefix(f'{qemu}: ')}"
    )
