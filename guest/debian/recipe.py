"""Makes the ``debian`` guest: a disk of Debian packages, and an initramfs that mounts it."""

from __future__ import annotations

import lzma
import tempfile
from pathlib import Path

from cosim.errors import EnvironmentFault, StorageError
from cosim.files import write_atomically
from cosim.output import Step
from guest import cpio, linux, making, spec
from guest.apt import Apt
from guest.debian import root
from guest.debian.root import File
from guest.spec import GuestSpec

NAME = "debian"

PACKAGES = (
    # What Debian calls essential, but for init and login.
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg"),
    *("findutils", "grep", "gzip", "hostname", "libc-bin", "mawk", "ncurses-base", "perl-base"),
    *("sed", "tar", "util-linux"),
    *("apt", "busybox-static", "less", "mount", "procps"),
)
"""What the disk has, with all that this depends on."""

APPEND = linux.APPEND

_SOURCE = Path(__file__).resolve().parent
_INITTAB = b"""\
::sysinit:/usr/local/lib/cosim/boot
ttyS0::once:/usr/local/lib/cosim/console
::shutdown:/bin/umount -a -r
"""
_MODULES = (
    # Each after those that it needs.
    *("crc16", "crc32c_generic", "libcrc32c", "mbcache", "jbd2", "ext4", "virtio_blk"),
)


class Recipe:
    """How the guest is made; see :class:`guest.making.Recipe`."""

    name = NAME
    verb = "fetch"
    summary = "a small Debian on a disk (ext4), with bash, apt and perl"

    def sources(self) -> str:
        """Return a text that changes with our scripts, the recipe, and the linux guest."""
        base = spec.read(linux.NAME)
        kernel = base.checksums["kernel"] if base else "no kernel"
        ours = [path for path in sorted(_SOURCE.iterdir()) if path.suffix in (".sh", ".py")]
        files = [*ours, Path(cpio.__file__)]
        return "+".join((spec.digest(files), linux.Recipe().sources(), kernel))

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Make the linux guest if it is missing, fetch the packages, make disk and initramfs.

        :raises EnvironmentFault: when a package, e2fsprogs or the compiler is missing.
        :raises StorageError: when the cache folder cannot be written.
        """
        base = making.ensure(linux.Recipe(), step)
        folder = spec.folder(NAME)
        apt = Apt(folder / "apt")
        apt.update(step)
        debs = apt.closure(PACKAGES, step)
        disk, part = folder / "disk.img", folder / "disk.part"
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix="tree-") as tree:
                versions = root.make(part, debs, files(), Path(tree), step)
            part.replace(disk)
        except OSError as error:
            raise StorageError(f"cannot write {folder}: {error.strerror}") from None
        finally:
            part.unlink(missing_ok=True)
        step(0, None, "initramfs")
        debian = spec.folder(linux.NAME) / "debian"
        initrd = folder / "initramfs.cpio.gz"
        write_atomically(initrd, cpio.compressed(entries(debian)))
        made = GuestSpec(
            name=NAME,
            kernel=base.kernel,
            initrd=initrd,
            disk=disk,
            append=APPEND,
            region_from="mark:init",
            region_to="mark:done",
            sources=self.sources(),
            versions={**base.versions, **versions},
            checksums={
                "kernel": base.checksums["kernel"],
                "initrd": spec.checksum(initrd),
                "disk": spec.checksum(disk),
            },
        )
        spec.write(made)
        apt.clean()
        return made


def files() -> dict[str, File]:
    """Return what the disk has besides packages.

    :raises EnvironmentFault: when there is no cross compiler.
    """
    programs = {
        "usr/local/bin/cosim-mark": linux.program(Path(linux.__file__).with_name("cosim_mark.c")),
        "usr/local/lib/cosim/boot": (_SOURCE / "boot.sh").read_bytes(),
        "usr/local/lib/cosim/console": (_SOURCE / "console.sh").read_bytes(),
        # Debian's names of these two are in packages that we leave out.
        "usr/sbin/init": b"#!/bin/sh\nexec busybox init\n",
        "usr/sbin/poweroff": b"#!/bin/sh\nexec busybox poweroff\n",
    }
    texts = {
        "etc/inittab": _INITTAB,
        "etc/hostname": b"debian\n",
        "etc/fstab": b"/dev/vda / ext4 defaults 0 1\n",
    }
    return {
        **{path: File(content, 0o755) for path, content in programs.items()},
        **{path: File(content) for path, content in texts.items()},
    }


def entries(debian: Path) -> list[cpio.Entry]:
    """Return the entries of the initramfs that mounts the disk.

    :param debian: the folder with busybox and the modules of the kernel.
    :raises EnvironmentFault: when a module is damaged.
    """
    modules = [name for name in _MODULES if (debian / "modules" / f"{name}.ko.xz").is_file()]
    return [
        *(cpio.directory(path) for path in ("bin", "dev", "disk", "modules")),
        cpio.character_device("dev/console", 5, 1),
        cpio.regular("bin/busybox", (debian / "busybox").read_bytes(), 0o755),
        cpio.regular("init", (_SOURCE / "initramfs.sh").read_bytes(), 0o755),
        cpio.regular("modules/order", "".join(f"{name}.ko\n" for name in modules).encode()),
        *(
            cpio.regular(f"modules/{name}.ko", _unpacked(debian / "modules" / f"{name}.ko.xz"))
            for name in modules
        ),
    ]


def _unpacked(module: Path) -> bytes:
    try:
        return lzma.decompress(module.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise EnvironmentFault(
            f"{module} is damaged ({error}); fetch it again with `cosim guest fetch linux --force`"
        ) from None
