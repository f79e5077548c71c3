"""Where the tool keeps its files.

Guests, toolless downloads and compiled plugins live in the user's cache folder
(``$XDG_CACHE_HOME/lsp-cosim``, by default ``~/.cache/lsp-cosim``); ``COSIM_CACHE`` overrides it.
Files of one session (logs, the guest's RAM) live in a folder of their own that is made for it.
"""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
"""The folder that holds the packages ``cosim``, ``guest`` and ``hypervisor_model``."""


def cache() -> Path:
    """The cache folder; not created."""
    override = os.environ.get("COSIM_CACHE")
    if override:
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lsp-cosim"


def guests() -> Path:
    """The folder of fetched and built guests, one sub-folder each; not created."""
    return cache() / "guests"
