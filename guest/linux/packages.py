"""Fetches a riscv64 kernel of Debian's and static busybox, and unpacks what a guest needs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from cosim.errors import EnvironmentFault, StorageError, UsageError
from cosim.output import Step
from guest.apt import ARCHITECTURE, SUITE, Apt, Package, unpack

MODULES = frozenset(
    {
        *("virtio_blk", "crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4"),
        *("failover", "net_failover", "virtio_net", "kvm"),
    }
)
"""The kernel modules that are kept: a disk with ext4, a network card, KVM."""

_RECORD = "packages.json"


@dataclass(frozen=True)
class Kernel:
    """Which kernel of Debian's is wanted.

    ``suite`` is a suite of Debian's archive.  ``version`` is how its name begins, such as "6.12" or
    "7.2.13+deb14-riscv64"; "" stands for the one that the suite's ``linux-image-riscv64`` names.
    """

    suite: str = SUITE
    version: str = ""


@dataclass(frozen=True)
class Fetched:
    """What is unpacked in a folder: the packages, by their role, and what had been asked for."""

    kernel: Kernel
    packages: dict[str, Package]


def fetched(folder: Path) -> Fetched | None:
    """Return what is unpacked in ``folder``; None if not all is there."""
    try:
        document = json.loads((folder / _RECORD).read_text())
        if "packages" not in document:
            # Written before there was a choice.
            document = {"asked": {}, "packages": document}
        packages = {key: Package(**fields) for key, fields in document["packages"].items()}
        return Fetched(Kernel(**document["asked"]), packages)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def fetch(folder: Path, kernel: Kernel, step: Step) -> Fetched:
    """Make ``folder``: ``Image``, ``busybox`` and ``modules/*.ko.xz`` of Debian's riscv64 port.

    busybox is always that of :data:`guest.apt.SUITE`.  A download that was cut off is resumed.  The
    packages (up to 130 MB) are deleted after unpacking.

    :raises UsageError: when the suite has no such kernel.
    :raises EnvironmentFault: when a package cannot be fetched, or lacks what we expect in it.
    :raises StorageError: when ``folder`` cannot be written.
    """
    usual = Apt(folder.with_name("apt"))
    chosen = usual
    if kernel.suite != SUITE:
        chosen = Apt(folder.with_name("apt-kernel"), suite=kernel.suite)
        chosen.update(step)
    usual.update(step)
    packages = kernel_packages(chosen, kernel)
    busybox = usual.package("busybox-static")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / "modules").mkdir(parents=True)
        for package in packages.values():
            _take(chosen, package, kernel_place, part, step)
        _take(usual, busybox, _busybox_place, part, step)
        for name in ("Image", "busybox"):
            if not (part / name).is_file():
                names = ", ".join(package.name for package in (*packages.values(), busybox))
                raise EnvironmentFault(f"Debian's packages hold no {name}: {names}")
        made = Fetched(kernel, {**packages, "busybox": busybox})
        record = {
            "asked": asdict(kernel),
            "packages": {key: asdict(package) for key, package in made.packages.items()},
        }
        (part / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        raise StorageError(f"cannot write {part}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for apt in (usual, chosen):
        apt.clean()
    return made


def _take(
    apt: Apt, package: Package, place: Callable[[PurePosixPath], str | None], into: Path, step: Step
) -> None:
    deb = apt.download(package, step)
    unpack(deb, place, into)
    deb.unlink()


def kernel_packages(apt: Apt, kernel: Kernel) -> dict[str, Package]:
    """Return the packages that hold the image and the modules of ``kernel``, by their role.

    Until Linux 6.12 ``linux-image-V`` holds both.  The kernels of newer suites have the image in
    ``linux-binary-V`` and the modules in ``linux-modules-V``; there ``linux-image-V`` is empty and
    depends on both.

    :raises UsageError: when the suite has no such kernel.
    :raises EnvironmentFault: when the suite has no kernel at all.
    """
    image = apt.package(_image_name(apt, kernel))
    release = image.name.removeprefix("linux-image-")
    parts = {"kernel": f"linux-binary-{release}", "modules": f"linux-modules-{release}"}
    named = set(re.findall(r"[^\s,|()]+", image.depends))
    if not named.issuperset(parts.values()):
        return {"kernel": image}
    return {key: apt.package(name) for key, name in parts.items()}


def _image_name(apt: Apt, kernel: Kernel) -> str:
    if not kernel.version:
        match = re.search(r"linux-image-\S+", apt.package("linux-image-riscv64").depends)
        if match is None:
            raise EnvironmentFault("linux-image-riscv64 names no kernel package")
        return match.group()
    names = apt.names(rf"^linux-image-[0-9].*-{ARCHITECTURE}$")
    known = sorted((name.removeprefix("linux-image-") for name in names), key=_order)
    # 6.1 asks for 6.1.20, but not for 6.12.
    wanted = re.compile(re.escape(kernel.version) + r"(?!\d)")
    found = [release for release in known if wanted.match(release)]
    if not found:
        raise UsageError(
            f"Debian {kernel.suite} has no kernel {kernel.version} for {ARCHITECTURE}; "
            + (f"it has {', '.join(known)}" if known else "it has none")
            + "; give another --kernel-version or --suite"
        )
    return f"linux-image-{found[-1]}"


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


def kernel_place(path: PurePosixPath) -> str | None:
    """Return where a file of a kernel's package goes; None if it is not needed."""
    older = path.parent.name == "boot" and path.name.startswith("vmlinu")
    newer = path.name == "vmlinuz" and path.parent.parent.name == "modules"
    if older or newer:
        return "Image"
    name = path.name.partition(".")[0]
    if ".ko" in path.suffixes and name in MODULES:
        return f"modules/{path.name}"
    return None


def _busybox_place(path: PurePosixPath) -> str | None:
    return "busybox" if path.name == "busybox" and path.parent.name == "bin" else None
