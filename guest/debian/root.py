"""Makes a root file system on a disk image out of Debian packages, without root rights.

The packages are only unpacked.  Their maintainer scripts would have to run on a riscv64 machine, so
we do what those of this small choice do: users, groups and profiles, and the link ``awk``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosim.errors import EnvironmentFault, MissingTool, StorageError
from cosim.output import Step

_LEFT_OUT = (
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
    "var/cache/",
)
"""What no program needs: 40 MB of the disk."""
_SPARE = 64 << 20
"""Bytes that stay free on the disk, besides a tenth (ours)."""
_ADMIN = "/usr/sbin:/sbin"
_IDENTITY = "11111111-2222-4333-8444-555555555555"
"""The UUID of the file system and the seed of its directories, so that two disks are alike."""

_CONFIGURATION = {
    "base-passwd/passwd.master": "etc/passwd",
    "base-passwd/group.master": "etc/group",
    "base-files/profile": "etc/profile",
    "base-files/dot.profile": "root/.profile",
    "base-files/dot.bashrc": "root/.bashrc",
    "libc-bin/nsswitch.conf": "etc/nsswitch.conf",
}
"""What maintainer scripts copy out of ``usr/share``, and where it goes."""


@dataclass(frozen=True)
class File:
    """A file that the packages do not have."""

    content: bytes
    mode: int = 0o644


def make(
    image: Path, debs: Sequence[Path], files: Mapping[str, File], scratch: Path, step: Step
) -> dict[str, str]:
    """Write the file system of ``debs`` and ``files`` to ``image``.

    :param files: by their path on the disk, without a leading slash.
    :param scratch: an empty folder for the unpacked tree.
    :return: the versions of the packages by their name.
    :raises MissingTool: when e2fsprogs is missing.
    :raises EnvironmentFault: when a package cannot be unpacked, or the file system not be made.
    :raises StorageError: when there is no room.
    """
    tools = {name: _tool(name) for name in ("mke2fs", "debugfs")}
    owners: dict[str, tuple[int, int]] = {}
    versions: dict[str, str] = {}
    status = []
    try:
        for number, deb in enumerate(debs):
            step(number, len(debs), "unpack packages")
            fields = _control(deb)
            paths = _unpack(deb, scratch, owners)
            name = _field(fields, "Package")
            versions[name] = _field(fields, "Version")
            status.append(_as_unpacked(fields))
            _write(scratch, f"var/lib/dpkg/info/{name}.list", File("\n".join(paths).encode()))
        _write(scratch, "var/lib/dpkg/status", File("\n".join(status).encode()))
        _settle(scratch)
        for path, file in files.items():
            _write(scratch, path, file)
        step(0, None, "disk")
        _format(tools["mke2fs"], scratch, image)
    except OSError as error:
        raise StorageError(f"cannot write {scratch}: {error.strerror}") from None
    _own(tools["debugfs"], image, owners)
    return versions


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_ADMIN}")
    if found is None:
        raise MissingTool(
            f"{name} is missing, which makes the guest's disk; install it with "
            "`apt-get install e2fsprogs`"
        )
    return found


def _control(deb: Path) -> str:
    answer = subprocess.run(
        ["dpkg-deb", "-f", str(deb)], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise EnvironmentFault(f"cannot read {deb.name}: {answer.stderr.strip()}")
    return answer.stdout


def _field(control: str, name: str) -> str:
    lines = (line for line in control.splitlines() if line.startswith(f"{name}: "))
    return next(lines).partition(": ")[2]


def _as_unpacked(control: str) -> str:
    """Return the entry of dpkg's status for a package whose scripts have not run."""
    first, _, rest = control.partition("\n")
    return f"{first}\nStatus: install ok unpacked\n{rest}"


class _Tree(tarfile.TarFile):
    """An archive that is unpacked as the user who runs us; :func:`_own` sets the owners."""

    # apt has checked the signature, so owners and modes are what Debian wants.  The argument
    # `filter` of extract() does the same, but Debian 12's Python does not have it.
    extraction_filter = staticmethod(lambda member, path: member)

    def chown(self, *_: object) -> None:
        """Leave the owner as it is."""


def _unpack(deb: Path, into: Path, owners: dict[str, tuple[int, int]]) -> list[str]:
    """Unpack ``deb``; return the paths in it, and note in ``owners`` those that are not root's."""
    paths = []
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as dpkg:
        try:
            with _Tree.open(fileobj=dpkg.stdout, mode="r|") as tar:
                for member in tar:
                    path = member.name.removeprefix("./").strip("/")
                    if not path or (path + "/").startswith(_LEFT_OUT):
                        continue
                    tar.extract(member, into)
                    paths.append(f"/{path}")
                    if member.uid or member.gid:
                        owners[path] = (member.uid, member.gid)
        except tarfile.TarError as error:
            dpkg.kill()
            raise EnvironmentFault(f"cannot unpack {deb.name}: {error}") from None
    return paths


def _write(root: Path, path: str, file: File) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_bytes(file.content)
    target.chmod(file.mode)


def _settle(root: Path) -> None:
    """Do what the maintainer scripts would have done."""
    for folder in ("etc", "root"):
        (root / folder).mkdir(exist_ok=True)
    for source, target in _CONFIGURATION.items():
        if (root / "usr/share" / source).is_file():
            shutil.copyfile(root / "usr/share" / source, root / target)
    for link, target in (("awk", "mawk"), ("which", "which.debianutils")):
        if (root / "usr/bin" / target).exists() and not (root / "usr/bin" / link).exists():
            (root / "usr/bin" / link).symlink_to(target)
    for folder in (
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "root",
        "mnt",
        "var/cache/apt/archives/partial",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)


def _format(mke2fs: str, root: Path, image: Path) -> None:
    used = sum(
        -(-path.lstat().st_size // 4096) * 4096 + 4096
        for path in root.rglob("*")
        if path.is_symlink() or path.exists()
    )
    size = used + used // 10 + _SPARE
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size + -size % (1 << 20))
    options = f"root_owner=0:0,lazy_itable_init=0,hash_seed={_IDENTITY}"
    words = [mke2fs, "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "debian", "-U", _IDENTITY]
    _run([*words, "-E", options, "-d", str(root), str(image)])


def _own(debugfs: str, image: Path, owners: Mapping[str, tuple[int, int]]) -> None:
    """Give all files to root, and then some to the users whose they are."""
    if os.geteuid() == 0 and not owners:
        return
    commands = []
    if os.geteuid() != 0:
        for inode in range(11, _inodes(debugfs, image) + 1):
            commands += [f"sif <{inode}> uid 0", f"sif <{inode}> gid 0"]
    for path, (user, group) in owners.items():
        commands += [f"sif /{path} uid {user}", f"sif /{path} gid {group}"]
    _run([debugfs, "-w", "-f", "-", str(image)], "\n".join(commands) + "\n")


def _inodes(debugfs: str, image: Path) -> int:
    """Return how many inodes of the file system are in use; they are numbered one by one."""
    text = _run([debugfs, "-R", "stats -h", str(image)])
    counts = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    return int(counts["Inode count"]) - int(counts["Free inodes"])


def _run(words: list[str], text: str = "") -> str:
    answer = subprocess.run(
        words, input=text, capture_output=True, text=True, timeout=600, check=False
    )
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or ["no reason given"]
        raise EnvironmentFault(f"{Path(words[0]).name} cannot make the guest's disk: {lines[-1]}")
    return answer.stdout
