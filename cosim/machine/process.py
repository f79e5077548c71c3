"""Child processes that never outlive us.

The parent-death signal ties a child to the thread that starts it.  So the child dies even if the
tool is killed with ``SIGKILL``.  Start children from the main thread, or from a thread that lives
as long as they do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the signal was set up.
        os._exit(1)


def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a new session, tied to this process.

    The new session keeps Ctrl-C in our terminal from reaching the child before our teardown does.

    :param umask: of the child; -1: ours.
    :raises OSError: when the program cannot be started.
    """
    return subprocess.Popen(
        [os.fspath(word) for word in argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
        umask=umask,
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )


def end(process: subprocess.Popen[bytes], grace: float = 2.0) -> int:
    """Make sure that ``process`` is gone: wait, terminate, kill; return its exit status.

    :param grace: seconds to wait before each of the next two steps.
    """
    for stop in (None, process.terminate, process.kill):
        if stop is not None:
            with contextlib.suppress(ProcessLookupError):
                stop()
        try:
            return process.wait(grace if stop is not process.kill else None)
        except subprocess.TimeoutExpired:
            continue
    return process.wait()


def how_it_ended(status: int) -> str:
    """Return in words what the exit status of a child says."""
    if status >= 0:
        return f"ended with status {status}"
    number = signal.Signals(-status)
    why = "; was there too little memory?" if number == signal.SIGKILL else ""
    return f"was killed by signal {number:d} ({number.name}{why})"
