"""Makes the ``linux`` guest: fetches packages, compiles our programs, packs the initramfs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cosim.capture import marks
from cosim.files import write_atomically
from cosim.output import Step
from guest import compiler, cpio, spec
from guest.linux import packages
from guest.spec import GuestSpec

NAME = "linux"

APPEND = "console=ttyS0 earlycon=sbi panic=-1 no4lvl"
"""The kernel's command line: serial console, Sv39, and on a panic reboot at once, which ends QEMU.

With ``panic=N`` the kernel would first count N seconds of guest time, which takes minutes.
"""

_SOURCE = Path(__file__).resolve().parent
_MARK = _SOURCE.parent / "mark.S"
_PROGRAMS = {
    "init": "init.c",
    "bin/cosim-mark": "cosim_mark.c",
    "bin/paging-workload": "paging_workload.c",
}
_APPLETS = """
    sh ash cat chmod cp cut date dd df dmesg echo env expr false find free grep head hexdump id
    insmod kill ln ls lsmod mkdir mknod mount mv nice pidof poweroff ps pwd reboot rm rmdir rmmod
    sed seq setsid sleep sort stat stty sync tail taskset tee test time top touch tr true umount
    uname uniq uptime usleep vi wc which xargs xz yes
"""
"""The names that busybox has in /bin."""


class Recipe:
    """How the guest is made; see :class:`guest.making.Recipe`.

    :param kernel: which kernel; None keeps the choice that was made before, at first Debian 13's.
    """

    name = NAME
    verb = "fetch"
    summary = "a riscv64 kernel of Debian's, busybox, and a short paging workload"

    def __init__(self, kernel: packages.Kernel | None = None) -> None:
        self._kernel = kernel

    def has_kernel(self) -> bool:
        """Return True if the kernel that is asked for is there already."""
        found = packages.fetched(spec.folder(NAME) / "debian")
        return found is not None and self._kernel in (None, found.kernel)

    def sources(self) -> str:
        """Return a digest of our programs and of the recipe itself."""
        return spec.digest(
            [
                *(_SOURCE / name for name in (*_PROGRAMS.values(), "rt.h", "user.ld")),
                *(_MARK, Path(marks.__file__), Path(__file__)),
                *(Path(cpio.__file__), Path(compiler.__file__)),
            ]
        )

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Fetch what is missing (everything with ``force``), compile, pack.

        :raises UsageError: when Debian has no such kernel.
        :raises EnvironmentFault: when a package or the compiler is missing.
        """
        folder = spec.folder(NAME)
        debian = folder / "debian"
        unpacked = packages.fetched(debian)
        if unpacked is None or force or not self.has_kernel():
            before = packages.Kernel() if unpacked is None else unpacked.kernel
            unpacked = packages.fetch(debian, self._kernel or before, step)
        step(0, None, "initramfs")
        initrd = folder / "initramfs.cpio.gz"
        write_atomically(initrd, cpio.compressed(entries()))
        image = folder / "Image"
        if not image.exists():
            image.symlink_to("debian/Image")
        made = GuestSpec(
            name=NAME,
            kernel=image,
            initrd=initrd,
            append=APPEND,
            region_from="mark:init",
            region_to="power-off",
            sources=self.sources(),
            versions={package.name: package.version for package in unpacked.packages.values()},
            checksums={"kernel": spec.checksum(image), "initrd": spec.checksum(initrd)},
        )
        spec.write(made)
        return made


def program(source: Path) -> bytes:
    """Return the static riscv64 Linux program made of ``source`` and ``mark.S``; see ``rt.h``.

    :raises EnvironmentFault: when there is no cross compiler, or it refuses the source.
    """
    with tempfile.TemporaryDirectory(prefix="lsp-cosim-") as scratch:
        output = Path(scratch) / source.stem
        flags = f"-s -Wl,--defsym=MARK_ADDRESS={marks.USER_MARK:#x}"
        compiler.build(output, [_MARK, source], _SOURCE / "user.ld", extra=flags)
        return output.read_bytes()


def entries() -> list[cpio.Entry]:
    """Return the entries of the initramfs, each directory before its files.

    busybox must have been fetched.

    :raises EnvironmentFault: when there is no cross compiler.
    """
    busybox = (spec.folder(NAME) / "debian" / "busybox").read_bytes()
    return [
        *(cpio.directory(path) for path in ("bin", "dev", "proc", "sys", "root")),
        cpio.directory("tmp", 0o1777),
        # The kernel opens it for /init before devtmpfs is mounted.
        cpio.character_device("dev/console", 5, 1),
        cpio.regular("bin/busybox", busybox, 0o755),
        *(cpio.symlink(f"bin/{name}", "busybox") for name in _APPLETS.split()),
        *(cpio.regular(path, program(_SOURCE / name), 0o755) for path, name in _PROGRAMS.items()),
    ]
