"""Debian 13's QEMU beside the installed one: unpacked into the cache, not installed.

It runs with its own C library, so it works on an older Debian too.  To run other tests with it::

    PATH=$(python -m tests.system.debian13):$PATH pytest tests/system

It is downloaded once.  To get a newer version, delete the folder ``debian13`` of the cache.
"""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from pathlib import Path

from cosim import paths
from cosim.errors import EnvironmentFault
from cosim.machine import tools
from guest.apt import SUITE, Apt

_LAUNCHER = """#!/bin/sh
exec '{loader}' --argv0 "$0" --library-path '{libraries}' '{program}' -L '{data}' "$@"
"""


def is_installed() -> bool:
    """Return True if this machine is Debian 13, so that the installed QEMU is the one meant."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME") == SUITE
    except OSError:
        return False


def emulator() -> Path:
    """Return the path of Debian 13's QEMU; download and unpack it first if it is not there.

    :raises EnvironmentFault: when no Debian mirror is known, or the download fails.
    """
    folder = paths.cache() / "debian13"
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "bin" / tools.QEMU
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not launcher.exists():
            _unpack(folder, launcher)
    return launcher


class _Apt(Apt):
    def download_with_depends(self, name: str) -> list[Path]:
        """Download ``name`` and every package that it depends on; return the .deb files' paths."""
        arguments = ["install", "--download-only", "--no-install-recommends", "--yes", name]
        status, text = self._run("apt-get", arguments, _quiet, name)
        if status != 0:
            raise EnvironmentFault(f"apt cannot download {name}: {text}")
        return sorted((self._folder / "cache/archives").glob("*.deb"))


def _unpack(folder: Path, launcher: Path) -> None:
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    apt = _Apt(folder / "apt", architecture)
    apt.update(_quiet)
    for package in apt.download_with_depends("qemu-system-riscv"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    apt.clean()
    (loader,) = root.glob("usr/lib/*/ld-linux-*.so.*")
    launcher.parent.mkdir(exist_ok=True)
    part = launcher.with_suffix(".part")
    part.write_text(
        _LAUNCHER.format(
            loader=loader,
            libraries=loader.parent,
            program=root / "usr/bin" / tools.QEMU,
            data=root / "usr/share/qemu",
        )
    )
    part.chmod(0o755)
    part.rename(launcher)


def _quiet(done: float, total: float | None = None, text: str | None = None) -> None:
    pass


if __name__ == "__main__":
    print(emulator().parent)
