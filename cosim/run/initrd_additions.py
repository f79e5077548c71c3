"""Files that a user adds to an initramfs.

Linux unpacks archives that follow each other, compressed or not.  A file of a later archive
replaces one with the same path.  So the files become one more archive behind the first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from cosim import paths
from cosim.errors import GuestImageError, StorageError
from cosim.files import writing
from guest import cpio


@dataclass(frozen=True)
class Added:
    """A file or a folder of the host, and its path in the guest without a leading slash."""

    source: Path
    to: str


def extended(initrd: Path, additions: tuple[Added, ...]) -> Path:
    """Return an initramfs that is ``initrd`` with the added files.

    It lies in the cache, under a name that follows from its content, so that equal runs have equal
    command lines.

    :param initrd: a cpio archive, plain or compressed.
    :raises GuestImageError: when a file cannot be read, or is none that a guest can have.
    :raises StorageError: when the cache cannot be written.
    """
    archive = cpio.archive(_entries(additions))
    with initrd.open("rb") as file:
        total = hashlib.file_digest(file, "sha256")
    total.update(archive)
    made = paths.cache() / "initrds" / f"{total.hexdigest()[:16]}-{initrd.name}"
    if made.is_file():
        return made
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {made.parent}: {error.strerror}") from None
    with writing(made) as whole, initrd.open("rb") as first:
        shutil.copyfileobj(first, whole)
        # Linux looks for the next archive at a multiple of four.
        whole.write(bytes(-whole.tell() % 4) + archive)
    return made


def _entries(additions: tuple[Added, ...]) -> Iterator[cpio.Entry]:
    folders: set[str] = set()
    for added in additions:
        for source, to in _files(added):
            for parent in reversed(PurePosixPath(to).parents):
                if str(parent) != "." and str(parent) not in folders:
                    folders.add(str(parent))
                    yield cpio.directory(str(parent))
            entry = _entry(source, to, follow=source == added.source)
            if not stat.S_ISDIR(entry.mode):
                yield entry
            elif to not in folders:
                folders.add(to)
                yield entry


def _files(added: Added) -> Iterator[tuple[Path, str]]:
    """Yield each file and folder with its path in the guest."""
    yield added.source, added.to
    if added.source.is_dir():
        for path in sorted(_below(added.source)):
            yield path, f"{added.to}/{path.relative_to(added.source)}"


def _below(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and in its folders.

    :raises GuestImageError: when one of them cannot be read.
    """
    for place, folders, names in os.walk(folder, onerror=_unreadable):
        yield from (Path(place, name) for name in [*folders, *names])


def _unreadable(error: OSError) -> NoReturn:
    raise GuestImageError(f"cannot read {error.filename}: {error.strerror}") from None


def _entry(source: Path, to: str, *, follow: bool) -> cpio.Entry:
    try:
        mode = source.stat(follow_symlinks=follow).st_mode
        if stat.S_ISLNK(mode):
            return cpio.symlink(to, str(source.readlink()))
        if stat.S_ISDIR(mode):
            return cpio.directory(to, mode & 0o7777)
        if stat.S_ISREG(mode):
            return cpio.regular(to, source.read_bytes(), mode & 0o7777)
    except OSError as error:
        raise GuestImageError(f"cannot read {source}: {error.strerror}") from None
    raise GuestImageError(f"{source} is neither a file nor a folder; leave it out")
