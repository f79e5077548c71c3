"""Fetches Debian's riscv64 kernel and static busybox, and unpacks what a guest needs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from cosim.errors import EnvironmentFault, StorageError
from cosim.output import Step
from guest.apt import Apt, Package, unpack

MODULES = frozenset(
    {
        *("virtio_blk", "crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4"),
        *("failover", "net_failover", "virtio_net", "kvm"),
    }
)
"""The kernel modules that are kept: a disk with ext4, a network card, KVM."""

_RECORD = "packages.json"


def fetched(folder: Path) -> dict[str, Package] | None:
    """Return the packages unpacked in ``folder``, by their role; None if not all are there."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        return {key: Package(**fields) for key, fields in document.items()}
    except (OSError, ValueError, TypeError):
        return None


def fetch(folder: Path, step: Step) -> dict[str, Package]:
    """Make ``folder``: ``Image``, ``busybox`` and ``modules/*.ko.xz`` of Debian's riscv64 port.

    A download that was cut off is resumed.  The kernel package (112 MB) is deleted after unpacking.

    :raises EnvironmentFault: when a package cannot be fetched, or lacks what we expect in it.
    :raises StorageError: when ``folder`` cannot be written.
    """
    apt = Apt(folder.with_name("apt"))
    apt.update(step)
    meta = apt.package("linux-image-riscv64")
    match = re.search(r"linux-image-\S+", meta.depends)
    if match is None:
        raise EnvironmentFault("linux-image-riscv64 names no kernel package")
    packages = {"kernel": apt.package(match.group()), "busybox": apt.package("busybox-static")}
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "modules").mkdir(parents=True)
        for key, place in (("busybox", _busybox_place), ("kernel", _kernel_place)):
            deb = apt.download(packages[key], step)
            unpack(deb, place, part)
            deb.unlink()
        for name in ("Image", "busybox"):
            if not (part / name).is_file():
                raise EnvironmentFault(f"Debian's package holds no {name}")
        record = {key: asdict(package) for key, package in packages.items()}
        (part / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise StorageError(f"cannot write {part}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    apt.clean()
    return packages


def _kernel_place(path: PurePosixPath) -> str | None:
    if path.parent.name == "boot" and path.name.startswith("vmlinu"):
        return "Image"
    name = path.name.partition(".")[0]
    if ".ko" in path.suffixes and name in MODULES:
        return f"modules/{path.name}"
    return None


def _busybox_place(path: PurePosixPath) -> str | None:
    return "busybox" if path.name == "busybox" and path.parent.name == "bin" else None
