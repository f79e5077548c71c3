"""The registry of backends: each module of this package is one, and defines ``BACKEND``.

Nothing outside these modules compares the names of backends.
"""

from __future__ import annotations

import importlib
import pkgutil

from cosim.session.protocol import Backend


def _load() -> dict[str, type[Backend]]:
    found: dict[str, type[Backend]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        kind: type[Backend] = importlib.import_module(module.name).BACKEND
        found[kind.name] = kind
    return found


BACKENDS = _load()
"""The backends by name."""

FOR_RUN = "gdb+plugin"
"""The backend of ``cosim run`` if the user names none."""
FOR_CAPTURE = "plugin"
"""The backend of ``cosim capture`` if the user names none."""
FOR_CHECK = "plugin"
"""The backend of ``cosim check``, which needs every access, and has no use for what gdb adds."""
FOR_DEBUG = "gdb+plugin"
"""The backend of ``cosim debug``, which needs both sources."""
