"""How much memory this machine has left, by its own count and by those of our control groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Available(NamedTuple):
    """Memory that processes started now may use."""

    size: int
    """Bytes."""
    who: str
    """What leaves that much: ``this machine`` or a control group."""


class _Layout(NamedTuple):
    """Where one version of control groups has its files."""

    controller: str
    """What lines of /proc/self/cgroup name it."""
    mount: str
    limit: str
    usage: str
    reclaimable: str
    """The line of memory.stat that says what the group would give back."""


_LAYOUTS = (
    _Layout("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    _Layout(
        "memory",
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available(root: Path = Path("/")) -> Available | None:
    """Return how much memory is left; None if the system does not say.

    Swap counts.  Pages of files that the kernel would give up count as free.

    :param root: the folder that has ``proc`` and ``sys``.
    """
    found = [_machine(root), *_groups(root)]
    known = [one for one in found if one is not None]
    return min(known, key=lambda one: one.size, default=None)


def _machine(root: Path) -> Available | None:
    lines = _fields(root / "proc/meminfo")
    if "MemAvailable" not in lines:
        return None
    return Available((lines["MemAvailable"] + lines.get("SwapFree", 0)) << 10, "this machine")


def _groups(root: Path) -> Iterator[Available]:
    """Yield what each of our control groups leaves, and each group that they are in."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
        for layout in _LAYOUTS:
            if layout.controller in controllers.split(","):
                yield from _up(root / layout.mount, PurePosixPath(path), layout)


def _up(mount: Path, path: PurePosixPath, layout: _Layout) -> Iterator[Available]:
    for group in (path, *path.parents):
        folder = mount / str(group).lstrip("/")
        limit, usage = _number(folder / layout.limit), _number(folder / layout.usage)
        if limit is not None and usage is not None:
            usage -= _fields(folder / "memory.stat").get(layout.reclaimable, 0)
            yield Available(max(limit - usage, 0), f"the control group {group}")


def _fields(file: Path) -> dict[str, int]:
    """Return the numbers in a file whose lines are ``NAME NUMBER`` or ``NAME: NUMBER kB``."""
    pairs = re.findall(r"^([\w()]+):?\s+(\d+)", _read(file), re.MULTILINE)
    return {name: int(number) for name, number in pairs}


def _number(file: Path) -> int | None:
    text = _read(file).strip()
    # "max": no limit.
    return int(text) if text.isdecimal() else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
