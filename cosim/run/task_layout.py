"""Whether the processes of a guest's Linux can be named, and what that needs of its kernel."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import NamedTuple

from cosim.capture.processes import NAME_BYTES, ProcessLayout
from cosim.kernel import btf
from cosim.kernel.images import open_regular
from cosim.kernel.symbols import Symbols

_FIRST = "init_task"


class Naming(NamedTuple):
    """What is known of how a kernel keeps its processes: one of the two is None."""

    layout: ProcessLayout | None
    nameless: str | None
    """Why processes cannot be named."""


def naming_of(kernel: Path | None, names: Symbols) -> Naming:
    """Return how the kernel keeps its processes.

    :param kernel: the file that QEMU loads; None if it loads none.
    :param names: the kernel's symbols.
    :raises GuestImageError: when the file cannot be read.
    """
    if kernel is None or len(names.addresses(_FIRST)) != 1:
        return Naming(None, f"the kernel does not have one symbol {_FIRST}, as Linux has")
    with (
        open_regular(kernel, "kernel") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image,
    ):
        types = btf.find(image)
    if types is None:
        return Naming(None, "the kernel has no type information (CONFIG_DEBUG_INFO_BTF)")
    task = {name: types.member("task_struct", name) for name in ("tasks", "mm", "pid", "comm")}
    pgd, comm = types.member("mm_struct", "pgd"), task["comm"]
    if pgd is None or None in task.values() or comm is None or comm.elements != NAME_BYTES:
        return Naming(None, "the kernel keeps its processes in a way that cosim does not know")
    offsets = {name: member.offset for name, member in task.items() if member is not None}
    return Naming(ProcessLayout(names.address(_FIRST), pgd=pgd.offset, **offsets), None)
