"""What a run needs of this machine, said before it starts."""

from __future__ import annotations

from cosim.errors import EnvironmentFault
from cosim.machine import host_memory
from cosim.machine.host_memory import Available
from cosim.run.plan import TOOL_BYTES, Plan

_LEAST_BYTES = 64 << 20
"""Beside the guest's files, no run needs less than this: QEMU alone takes half of it (ours)."""


def check_memory(plan: Plan, free: Available | None = None) -> str | None:
    """Return a line for people if the run may need more memory than there is; otherwise None.

    :param free: what there is; None asks this machine.
    :raises EnvironmentFault: when the run cannot work with so little.
    """
    free = free or host_memory.available()
    if free is None:
        return None
    option = plan.names.option("memory")
    ram, needed = plan.machine.memory, plan.memory_needed
    files = (plan.image.path, plan.machine.initrd)
    least = _LEAST_BYTES + sum(file.stat().st_size for file in files if file is not None)
    if least > free.size:
        raise EnvironmentFault(
            f"a run of this guest needs at least {_size(least)} of memory, and {free.who} has "
            f"{_size(free.size)} left; free some"
        )
    if needed <= free.size:
        return None
    return (
        f"this run needs up to {_size(needed)} of memory ({_size(ram)} of guest RAM and about "
        f"{_size(TOOL_BYTES)} for QEMU and the models), and {free.who} has {_size(free.size)} "
        f"left; if the guest uses all its RAM, QEMU is killed: give it less with {option}"
    )


def _size(count: int) -> str:
    """Return a number of bytes for people.

    >>> _size(512 << 20), _size(9 << 29)
    ('512 MiB', '4.5 GiB')
    """
    return f"{count >> 20} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"
