"""How the workload of a guest ended, as the guest's console says it."""

from __future__ import annotations

import re
from pathlib import Path

_ENDED = re.compile(rb"^cosim: done, exit status (\d+)\r?$", re.MULTILINE)
"""What the init of the ``linux`` guest prints last (guest/linux/init.c)."""
_END_OF_LOG = 64 << 10


def failure(folder: Path) -> str | None:
    """Return what to say if the workload failed; the console's log is in ``folder``.

    The result is not wrong then: what the guest did was measured all the same.
    """
    for log in sorted(folder.rglob("*.console.log")):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _END_OF_LOG))
            ended = _ENDED.findall(file.read())
        if ended and int(ended[-1]):
            return f"the workload ended with exit status {int(ended[-1])} (console: {log})"
    return None
