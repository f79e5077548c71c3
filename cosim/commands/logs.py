"""The folders with the logs of sessions: made private, and not kept for ever."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosim import paths
from cosim.errors import StorageError

KEPT = 50
"""Folders of failed sessions that are kept (ours)."""
KEPT_BYTES = 256 << 20
"""Bytes that these may take on disk together; the newest one is kept in any case (ours)."""


@contextmanager
def folder_for(asked: Path | None) -> Iterator[Path]:
    """Yield a folder for the logs of one session, which nobody else can read.

    Without ``asked`` it is a new one in the cache, and old ones there are removed.

    :param asked: the user's choice.  A folder that is there already keeps its permissions.
    :raises StorageError: when it cannot be made.
    """
    try:
        if asked is None:
            parent = paths.cache() / "sessions"
            parent.mkdir(parents=True, exist_ok=True)
            prune(parent)
            folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=parent))
        else:
            folder = asked
            folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                # The umask may have taken away more.
                folder.chmod(0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(
            f"cannot write {asked or paths.cache()}: {error.strerror}; "
            "free space, or choose a folder with --logs or COSIM_CACHE"
        ) from None
    try:
        # Tells `prune` of other sessions that this one is in use, until this process ends.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(descriptor)


def prune(parent: Path, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
    """Remove the oldest folders of logs in ``parent`` that no session uses.

    :param kept: how many stay at most.
    :param kept_bytes: how many bytes on disk these may take; the newest stays in any case.
    """
    total = 0
    # Their names begin with the time.
    for number, folder in enumerate(sorted(parent.iterdir(), reverse=True)):
        if folder.is_symlink() or not folder.is_dir():
            continue
        total += _size(folder)
        if number >= kept or (number > 0 and total > kept_bytes):
            _remove(folder)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # Another process may remove it meanwhile.
        with contextlib.suppress(OSError):
            size += path.lstat().st_blocks * 512
    return size


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
