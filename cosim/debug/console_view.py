"""Where the user sees the guest's console while gdb has the terminal: a tmux pane, or a file."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Self

from cosim.errors import StorageError
from cosim.machine.console import Console

_LINES = "12"
_SECONDS = 5.0


class ConsoleView:
    """A file with what the guest prints.  Inside tmux, a pane below shows it.

    A context manager; leaving closes the pane.

    :param file: is made; it is empty at first.
    :raises StorageError: when it cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._path = file
        self._pane: str | None = None
        self._shown: Console | None = None
        try:
            self._file = file.open("wb", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}") from None

    def __enter__(self) -> Self:
        if os.environ.get("TMUX") and shutil.which("tmux"):
            follow = f"tail -n +1 -F {shlex.quote(str(self._path))}"
            split = ("split-window", "-d", "-v", "-l", _LINES, "-P", "-F", "#{pane_id}")
            self._pane = _tmux(*split, follow)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pane:
            _tmux("kill-pane", "-t", self._pane)
        self._file.close()

    @property
    def where(self) -> str:
        """Where the console is to be seen, for people."""
        return "in the pane below" if self._pane else f"in {self._path}"

    def show(self, console: Console, at: int | None = None) -> None:
        """Show what ``console`` prints from now on.

        :param at: the guest is another one, which is at this instruction.
        """
        if self._shown is not None:
            self._shown.mirror(None)
        if at is not None:
            self._write(b"\n[cosim: back at instruction %d]\n" % at)
        self._shown = console
        console.mirror(self._write)

    def _write(self, chunk: bytes) -> None:
        # The disk may be full, or the session is ending.
        with contextlib.suppress(OSError, ValueError):
            self._file.write(chunk)


def _tmux(*words: str) -> str | None:
    """Run a command of tmux; return what it prints, or None if it fails."""
    try:
        done = subprocess.run(
            ["tmux", *words], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
