"""The outputs of a report (:mod:`cosim.report.content`), one module each.

A module that writes files has ``SUFFIXES``, the endings of their names, and ``render``.  It is
found by its being in this package: nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from cosim.errors import UsageError
from cosim.files import write_atomically
from cosim.report.content import Report


class FileRenderer(Protocol):
    """A module of this package that writes files."""

    SUFFIXES: tuple[str, ...]

    def render(self, report: Report) -> str:
        """Return the text of the file."""
        ...


def write(report: Report, path: Path) -> int:
    """Write ``report`` to ``path``, whole or not at all, and return its size in bytes.

    The suffix of ``path`` says in which form.

    :raises UsageError: when no renderer has that suffix.
    :raises StorageError: when the file cannot be written.
    """
    data = for_file(path).render(report).encode()
    write_atomically(path, data)
    return len(data)


def for_file(path: Path) -> FileRenderer:
    """Return the renderer for the suffix of ``path``.

    :raises UsageError: when there is none.
    """
    known: list[str] = []
    for renderer in _all():
        if path.suffix in renderer.SUFFIXES:
            return renderer
        known += renderer.SUFFIXES
    ending = f"no report ends in {path.suffix}" if path.suffix else "the name has no suffix"
    raise UsageError(f"{path}: {ending}; use a name that ends in {' or '.join(sorted(known))}")


def _all() -> Iterator[FileRenderer]:
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "SUFFIXES"):
            yield cast(FileRenderer, module)
