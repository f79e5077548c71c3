"""What a session needs to know about a guest, and the folder with the guest's files."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cosim import paths
from cosim.errors import GuestImageError, StorageError
from cosim.files import write_atomically
from cosim.output import note

_FILE = "guest.json"


@dataclass(frozen=True)
class GuestSpec:
    """A guest that is ready to boot.

    ``kernel`` and ``initrd`` are the values of QEMU's options with these names.  ``bios`` is None
    for QEMU's own firmware (OpenSBI), "none", or a file.  ``append`` is the kernel's command line,
    ``memory`` QEMU's ``-m`` and ``cpu`` its ``-cpu``; None stands for
    :func:`cosim.machine.tools.default_cpu`, with ``extensions``.  ``region_from`` and ``region_to``
    are the default region of interest, written as for ``--from`` and ``--to``.  ``versions`` has
    the version of each package in the guest, ``checksums`` the SHA-256 of each of its files.
    ``sources`` identifies the recipe that made the guest.
    """

    name: str
    kernel: Path
    append: str
    region_from: str
    region_to: str
    sources: str
    initrd: Path | None = None
    disk: Path | None = None
    """A raw image that the guest sees as its first virtio disk."""
    bios: str | None = None
    memory: str = "512M"
    cpu: str | None = None
    typed_to: str | None = None
    """Where the region ends instead of ``region_to`` if someone types into the guest."""
    extensions: str = ""
    """What the CPU has besides, as in QEMU's ``-cpu``: ``svinval=on``."""
    versions: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """Return the guest as the JSON object that ``guest.json`` holds."""
        document: dict[str, object] = asdict(self)
        document["kernel"] = str(self.kernel)
        for key, path in (("initrd", self.initrd), ("disk", self.disk)):
            document[key] = None if path is None else str(path)
        document["region"] = {"from": self.region_from, "to": self.region_to}
        del document["region_from"], document["region_to"]
        return document


def folder(name: str) -> Path:
    """Return the folder of the guest ``name``; this does not create it."""
    return paths.guests() / name


def read(name: str) -> GuestSpec | None:
    """Return the guest as its folder describes it; None if it is not there or not complete."""
    try:
        document = json.loads((folder(name) / _FILE).read_text())
        region = document.pop("region")
        document["kernel"] = _found(name, document["kernel"])
        for key in ("initrd", "disk"):
            document[key] = document.get(key) and _found(name, document[key])
        spec = GuestSpec(region_from=region["from"], region_to=region["to"], **document)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Another version of the tool wrote it, so it counts as missing.
        return None
    files = (spec.kernel, spec.initrd, spec.disk)
    return spec if all(file is None or file.is_file() for file in files) else None


def write(spec: GuestSpec) -> None:
    """Write ``guest.json``, as the last step of making a guest.

    :raises StorageError: when the folder cannot be written.
    """
    document = spec.document()
    for key in ("kernel", "initrd", "disk"):
        path = document[key]
        if path is not None and Path(str(path)).is_relative_to(folder(spec.name)):
            # So that the cache may be moved or copied.
            document[key] = str(Path(str(path)).relative_to(folder(spec.name)))
    write_atomically(folder(spec.name) / _FILE, json.dumps(document, indent=2) + "\n")


def _found(name: str, written: str) -> Path:
    """Return where the file is now that ``guest.json`` names.

    Older versions wrote the whole path, which leads nowhere, or to another cache, after the cache
    was moved or copied.
    """
    path = Path(written)
    marker = ("guests", name)
    for at in range(len(path.parts) - 2, 0, -1):
        moved = folder(name).joinpath(*path.parts[at + 2 :])
        if path.parts[at : at + 2] == marker and moved.is_file():
            return moved
    return folder(name) / path


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 over names and contents of ``files``, in the given order.

    :raises GuestImageError: when one of them cannot be read.
    """
    total = hashlib.sha256()
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise GuestImageError(f"cannot read {file}: {error.strerror}") from None
        total.update(f"{file.name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def checksum(path: Path) -> str:
    """Return the SHA-256 of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Lock the guest's folder, so that two sessions do not make the guest at the same time.

    If another one makes it, say so and wait until it has.

    :raises StorageError: when the cache folder cannot be written.
    """
    try:
        folder(name).mkdir(parents=True, exist_ok=True)
        file = (folder(name) / "lock").open("wb")
    except OSError as error:
        raise StorageError(
            f"cannot write {folder(name)}: {error.strerror}; "
            "free space, or choose a folder with COSIM_CACHE"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"cosim: another cosim process makes the guest {name}; waiting until it has")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
