"""Run one `cosim` command in its own process and measure its time and memory.

For the benchmarks here.  The kernel's figure for a child (``ru_maxrss``) is of no use, because it
starts from what the parent had when it made the child.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

_CHILD = """
import sys
from pathlib import Path
from cosim.cli import main
try:
    main(sys.argv[1:])
finally:
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    print(peak, file=sys.stderr)
"""


class Measured(NamedTuple):
    """What one command took."""

    seconds: float
    peak_memory: int
    """Bytes resident at most, in the command's own process; its QEMU is another."""


def cosim(*words: str | Path) -> Measured:
    """Run ``cosim`` with ``words`` to its end.

    :raises SystemExit: when it fails; the message has what it said.
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    said, found, peak = done.stderr.rpartition("VmHWM:")
    if not found or done.returncode not in (0, 1):
        raise SystemExit(f"cosim {' '.join(map(str, words))} failed:\n{said or done.stderr}")
    return Measured(seconds, int(peak.split()[0]) * 1024)
