"""Fetches the real programs out of Debian's riscv64 packages, with the libraries they need.

A package's ``Depends`` lists far more than its programs load; that of stress-ng would bring a
whole graphics driver stack.  So we follow the ``DT_NEEDED`` entries of the programs, and then those
of the libraries.  Each library is looked for in the packages that its user depends on.  If it is
not found there, fetching fails, rather than a program later in the guest.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from cosim.errors import EnvironmentFault, StorageError
from cosim.output import Step
from guest.apt import Apt, Package, unpack

PROGRAMS: dict[str, tuple[str, ...]] = {
    "cpp-14-riscv64-linux-gnu": ("usr/libexec/gcc/riscv64-linux-gnu/14/cc1",),
    "sqlite3": ("usr/bin/sqlite3",),
    # Server and checker are one file, which takes its role from its name.
    "redis-tools": ("usr/bin/redis-benchmark", "usr/bin/redis-check-rdb", "usr/bin/redis-cli"),
    "stress-ng": ("usr/bin/stress-ng",),
    "xz-utils": ("usr/bin/xz",),
    "python3.13-minimal": ("usr/bin/python3.13",),
    "libpython3.13-minimal": ("usr/lib/python3.13/",),
}
"""What is taken from each package: files, and folders, which end with a slash."""

LIBRARIES = "lib/riscv64-linux-gnu"
"""Where the image has shared libraries, each under its soname."""

LOADER = "ld-linux-riscv64-lp64d.so.1"
"""The dynamic loader, in ``lib``."""

_ODD = {
    "libc.so.6": "libc6",
    "libm.so.6": "libc6",
    LOADER: "libc6",
    "libz.so.1": "zlib1g",
    "libcrypto.so.3": "libssl3t64",
    "libJudy.so.1": "libjudydebian1",
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libGLdispatch.so.0": "libglvnd0",
    "libjpeg.so.62": "libjpeg62-turbo",
}
"""Libraries whose package is not named by Debian's rule."""

_RECORD = "packages.json"
_FOUND = "libraries"  # all shared objects so far, before we know which are needed


def fetched(folder: Path) -> dict[str, str] | None:
    """Return the versions of the packages unpacked in ``folder``; None if not all are there."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        if document["programs"] != _wanted():
            return None
        return {Package(**each).name: Package(**each).version for each in document["packages"]}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def fetch(folder: Path, step: Step) -> dict[str, str]:
    """Make ``folder``: the programs at their Debian paths, the libraries in :data:`LIBRARIES`.

    Packages that an interrupted download has left are used again.

    :return: the packages' versions by name.
    :raises EnvironmentFault: when a package cannot be fetched or lacks what we expect in it, or a
        library is not found.
    :raises StorageError: when ``folder`` cannot be written.
    """
    apt = Apt(folder.with_name("apt"))
    apt.update(step)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / _FOUND).mkdir(parents=True)
        taken = _Closure(apt, part, step).take()
        shutil.rmtree(part / _FOUND)
        record = {"programs": _wanted(), "packages": [asdict(package) for package in taken]}
        (part / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise StorageError(f"cannot write {part}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    apt.clean()
    return {package.name: package.version for package in taken}


def _wanted() -> dict[str, list[str]]:
    return {name: list(files) for name, files in PROGRAMS.items()}


class _Closure:
    """Unpacks packages below ``folder`` until every needed library is there."""

    def __init__(self, apt: Apt, folder: Path, step: Step) -> None:
        self._apt = apt
        self._folder = folder
        self._step = step
        self._taken: dict[str, Package] = {}
        self._found: dict[str, Path] = {}  # shared objects by soname
        self._depends: set[str] = set()

    def take(self) -> list[Package]:
        """Take the programs and what they need; return the packages in the order taken."""
        for name in PROGRAMS:
            self._open(name)
        (self._folder / LIBRARIES).mkdir(parents=True)
        pending = [path for path in sorted(self._folder.glob("usr/**/*")) if path.is_file()]
        done: set[str] = set()
        while pending:
            user = pending.pop()
            for soname in sorted(set(_dynamic(user, "DT_NEEDED")) - done):
                done.add(soname)
                pending.append(self._install(soname, user.name))
        return list(self._taken.values())

    def _install(self, soname: str, user: str) -> Path:
        if soname not in self._found:
            package = package_of(soname, self._depends)
            if package is not None and package not in self._taken:
                self._open(package)
        if soname not in self._found:
            raise EnvironmentFault(
                f"{user} needs the library {soname}, and no package that it depends on has it"
            )
        target = self._folder / ("lib" if soname == LOADER else LIBRARIES) / soname
        self._found[soname].rename(target)
        return target

    def _open(self, name: str) -> None:
        """Download the package ``name`` and unpack its programs and shared objects."""
        package = self._apt.package(name)
        deb = self._apt.download(package, self._step)
        self._step(0, None, name)
        files = PROGRAMS.get(name, ())
        seen: set[str] = set()

        def place(path: PurePosixPath) -> str | None:
            inside = str(path)
            for file in files:
                if inside == file or (file.endswith("/") and inside.startswith(file)):
                    (self._folder / inside).parent.mkdir(parents=True, exist_ok=True)
                    seen.add(file)
                    return inside
            if ".so" in path.name and "riscv64-linux-gnu" in path.parts[:-1]:
                return f"{_FOUND}/{path.name}"
            return None

        unpack(deb, place, self._folder)
        if missing := set(files) - seen:
            raise EnvironmentFault(f"package {name} holds no {min(missing)}")
        self._taken[name] = package
        self._depends |= set(re.findall(r"(?:^|[,|] *)([a-z0-9][a-z0-9+.-]+)", package.depends))
        for path in (self._folder / _FOUND).iterdir():
            for soname in _dynamic(path, "DT_SONAME"):
                self._found.setdefault(soname, path)


def package_of(soname: str, names: set[str]) -> str | None:
    """Return the one of the packages ``names`` that has the library ``soname``; None if unknown.

    By Debian's rule ``libfoo.so.3`` is in ``libfoo3``, and ``libfoo2.so.3`` in ``libfoo2-3``.
    ``t64`` is appended if the package was rebuilt for 64-bit time.
    """
    if soname in _ODD:
        return _ODD[soname]
    stem, _, version = soname.partition(".so.")
    joint = "-" if stem[-1:].isdigit() else ""
    name = f"{stem}{joint}{version}".lower().replace("_", "-")
    # gcc's support library has a dash before its version, although its name ends in a letter.
    for candidate in (name, name + "t64", f"{stem}-{version}".lower().replace("_", "-")):
        if candidate in names:
            return candidate
    return None


def _dynamic(path: Path, tag: str) -> list[str]:
    """Return the strings of the dynamic entries ``tag`` (DT_NEEDED, DT_SONAME) of an ELF file."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
        try:
            section = ELFFile(file).get_section_by_name(".dynamic")
        except ELFError:
            return []
        if not isinstance(section, DynamicSection):
            return []
        key = {"DT_NEEDED": "needed", "DT_SONAME": "soname"}[tag]
        return [getattr(entry, key) for entry in section.iter_tags(tag)]
