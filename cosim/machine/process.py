"""Child processes that never outlive us.

The parent-death signal ties a child to the thread that starts it.  So the child dies even if the
tool is killed with ``SIGKILL``.  Start children from the main thread, or from a thread that lives
as long as they do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_TIED = ("--pdeathsig", "KILL", "--")
"""With these options, setpriv asks for the parent-death signal, which outlives exec.

Asked for by Python between fork and exec (``preexec_fn``), it would need a real fork.  The host
refuses that to a process that has mapped more than there is memory, as the models' RAM may be.
Without it Python uses vfork, which copies nothing.
"""


def setpriv() -> str | None:
    """Return the path of setpriv, which each child is started with; None if it is missing.

    It is a part of every Debian, wherever the user's PATH leads.
    """
    return shutil.which("setpriv") or shutil.which("setpriv", path=os.defpath)


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
    :raises FileNotFoundError: when there is no such program.
    :raises OSError: when the program cannot be started for another reason.
    """
    return subprocess.Popen(
        _tied(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        start_new_session=True,
        umask=umask,
    )


def spawn_in_terminal(
    argv: Sequence[str | Path],
    *,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with our terminal, tied to this process.

    It is in our group of processes, so that it may read from the terminal.

    :param environment: further variables.
    :raises FileNotFoundError: when there is no such program.
    :raises OSError: when the program cannot be started for another reason.
    """
    return subprocess.Popen(
        _tied(argv), pass_fds=pass_fds, env={**os.environ, **(environment or {})}
    )


def _tied(argv: Sequence[str | Path]) -> list[str]:
    """Return the words that start ``argv`` tied to the thread that starts it.

    :raises FileNotFoundError: when there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])
    starter = setpriv()
    if starter is None:
        raise FileNotFoundError(errno.ENOENT, "setpriv of util-linux is missing", "setpriv")
    return [starter, *_TIED, *words]


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


def cpu_ticks(pid: int) -> int:
    """Return the CPU time that a process has used, in ticks of the host; 0 if it is gone."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return int(fields[11]) + int(fields[12]) if fields else 0


def asleep(pid: int) -> bool:
    """Return True if every thread of a process waits for something that is not a disk."""
    threads = [_stat(thread) for thread in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(fields[:1] == ["S"] for fields in threads)


def _stat(file: Path) -> list[str]:
    """Return the fields behind the name in a file ``stat`` of /proc; none if it is gone."""
    try:
        return file.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def how_it_ended(status: int) -> str:
    """Return in words what the exit status of a child says."""
    if status >= 0:
        return f"ended with status {status}"
    number = signal.Signals(-status)
    why = "; was there too little memory?" if number == signal.SIGKILL else ""
    return f"was killed by signal {number:d} ({number.name}{why})"
