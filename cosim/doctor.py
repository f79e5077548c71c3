"""Examines what the tool needs: programs, what QEMU can do, the cache folder, the guests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import guest
from cosim import paths
from cosim.errors import MissingTool, StorageError
from cosim.machine import host_memory, process, tools
from cosim.run.plan import SNAPSHOT_QEMU, TOOL_BYTES
from guest import apt, spec

_SETUP = "scripts/setup"
_ENOUGH_BYTES = 1 << 30
_ENOUGH_MEMORY = TOOL_BYTES + (512 << 20)
_KEPT = "guests and logs cannot be kept"


@dataclass(frozen=True)
class Part:
    """One thing that the tool needs.

    ``status`` is ``limited`` if the part is there but cannot do everything.  ``required`` is true
    if no session works without the part.  ``costs`` says what does not work without it, ``get`` how
    to get it, and ``found`` what is there instead, if that is known.
    """

    name: str
    status: Literal["ok", "limited", "missing"]
    required: bool
    version: str
    path: str
    costs: str
    get: str
    found: str = ""

    def document(self) -> dict[str, object]:
        """Return the part as a JSON object."""
        return asdict(self)


def examine() -> list[Part]:
    """Examine every part; a missing part is no error."""
    parts = [
        _tool("QEMU", tools.qemu, True, "no guest runs", f"{_SETUP} (qemu-system-riscv)"),
        *_qemu_features(),
        _tool("gdb", tools.gdb, True, "no session through gdb", f"{_SETUP} (gdb-multiarch)"),
        _tool(
            "cross compiler",
            tools.cross_compiler,
            False,
            "the tool's own guests cannot be built",
            f"{_SETUP} (gcc-riscv64-linux-gnu)",
        ),
        _tool(
            "C compiler",
            tools.host_compiler,
            False,
            "no captures with the TCG plugin, unless it is already compiled",
            f"{_SETUP} (gcc, libc6-dev)",
        ),
        _setpriv(),
        _memory(),
        _apt(),
    ]
    try:
        paths.cache()
    except StorageError as error:
        get = "set COSIM_CACHE to a folder"
        return [*parts, Part("cache folder", "missing", True, "", "", _KEPT, get, str(error))]
    return [*parts, _cache(), *map(_guest, guest.NAMES)]


def _tool(name: str, find: Callable[[], tools.Tool], required: bool, costs: str, get: str) -> Part:
    try:
        found = find()
    except MissingTool as error:
        return Part(name, "missing", required, "", "", costs, get, found=str(error))
    version = ".".join(map(str, found.version))
    return Part(name, "ok", required, version, str(found.path), costs, get)


def _qemu_features() -> list[Part]:
    try:
        emulator = tools.qemu()
    except MissingTool:
        return []
    firmware = tools.firmware(emulator)
    plugins = tools.qemu_has_plugins(emulator.path)
    svade = tools.qemu_has_cpu_option(emulator.path, "svade=on")
    modern = emulator.version >= (10,)
    return [
        Part(
            "OpenSBI",
            "ok" if firmware else "missing",
            True,
            "",
            str(firmware or ""),
            "guests boot only with --bios FILE or --bios none",
            f"{_SETUP} (opensbi)",
        ),
        Part(
            "TCG plugins",
            "ok" if plugins and modern else "limited" if plugins else "missing",
            False,
            "API 4" if modern else "",
            "",
            "no captures with the plugin, which run at QEMU's speed; they need QEMU 10",
            f"{_SETUP} (QEMU 10: Debian 13, or 12 with backports)",
        ),
        Part(
            "snapshots",
            "ok" if emulator.version >= SNAPSHOT_QEMU else "missing",
            False,
            "",
            "",
            "no `cosim snapshot` and no --from-snapshot",
            f"{_SETUP} (QEMU 10: Debian 13, or 12 with backports)",
        ),
        Part(
            "Svade",
            "ok" if svade else "missing",
            False,
            "",
            "",
            "QEMU sets accessed and dirty bits itself, and no event shows that",
            f"{_SETUP} (QEMU 10: Debian 13, or 12 with backports)",
        ),
    ]


def _setpriv() -> Part:
    path = process.setpriv()
    return Part(
        "setpriv",
        "ok" if path else "missing",
        True,
        "",
        path or "",
        "no guest runs, because nothing would end it if cosim were killed",
        f"{_SETUP} (util-linux)",
    )


def _memory() -> Part:
    free = host_memory.available()
    enough = free is None or free.size >= _ENOUGH_MEMORY
    size = "" if free is None else f"{free.size >> 20} MiB free"
    return Part(
        "memory",
        "ok" if enough else "limited",
        False,
        size,
        "" if free is None else free.who,
        "QEMU may be killed if a guest of 512 MiB uses all its RAM",
        "free some, or give guests less with --memory",
    )


def _apt() -> Part:
    tool = shutil.which("apt-get")
    keyring = apt.keyring()
    status: Literal["ok", "missing"] = "ok" if tool and keyring else "missing"
    return Part(
        "apt and Debian's keys",
        status,
        False,
        "",
        tool or "",
        "the linux guest cannot be fetched",
        "run on Debian" if not tool else f"{_SETUP} (debian-archive-keyring)",
    )


def _cache() -> Part:
    folder = paths.cache()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free
    status: Literal["ok", "limited", "missing"] = "ok" if writable else "missing"
    if writable and free < _ENOUGH_BYTES:
        status = "limited"
    return Part(
        "cache folder",
        status,
        True,
        f"{free >> 30} GiB free",
        str(folder),
        _KEPT,
        "free some space there, or set COSIM_CACHE to another folder",
    )


def _guest(name: str) -> Part:
    recipe = guest.recipe(name)
    state = guest.status(name)
    found = spec.read(name)
    return Part(
        f"guest {name}",
        "ok" if state == "ready" else "missing",
        False,
        # If there is a kernel package, it comes first.
        next(iter(found.versions.values()), "") if found else "",
        str(spec.folder(name)),
        f"the first command that uses the guest must {recipe.verb} it ({state})",
        f"cosim guest {recipe.verb} {name}",
    )
