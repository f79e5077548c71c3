"""Where the tool keeps its files.

Guests and compiled plugins are in the user's cache folder (``$XDG_CACHE_HOME/lsp-cosim``, by
default ``~/.cache/lsp-cosim``); ``COSIM_CACHE`` overrides it.  The logs of a session are in a
folder that is made for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from cosim.errors import StorageError

SOURCE = Path(__file__).resolve().parent.parent
"""The folder that holds the packages ``cosim``, ``guest`` and ``hypervisor_model``."""


def cache() -> Path:
    """Return the cache folder; this does not create it.

    :raises StorageError: when the user has no home and names no folder.
    """
    override = os.environ.get("COSIM_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "lsp-cosim"
    except RuntimeError:
        # As in a container that runs with a user id without a name.
        raise StorageError(
            f"no place for guests and logs: HOME is not set, and user {os.getuid()} has no home "
            "folder; set COSIM_CACHE to a folder for them"
        ) from None


def guests() -> Path:
    """Return the folder of the guests, which has one sub-folder each; this does not create it.

    :raises StorageError: when the user has no home and names no folder.
    """
    return cache() / "guests"
