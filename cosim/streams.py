"""The standard streams, made safe before anything writes to them.

- A stream that is closed (``>&-``) becomes ``/dev/null``.  Otherwise the next file that is opened
  would get its number, and messages would go into a log or a socket.
- Messages that cannot be written (a full disk, a terminal that has gone, a pipe that nobody reads)
  are dropped.  They change neither what a command does nor its exit status.
- Names that are no UTF-8 are printed with their odd bytes as ``\\xff``.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

SHOWN = "cosim.shown"
r"""How to encode text with names in it: the odd byte of a name becomes ``\xff``."""


def _shown(error: UnicodeError) -> tuple[str, int]:
    r"""Show what an encoding lacks: ``\xff`` for a byte of a name, otherwise as Python does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    text = "".join(
        f"\\x{ord(c) - 0xDC00:02x}"
        if 0xDC80 <= ord(c) <= 0xDCFF
        else c.encode("ascii", "backslashreplace").decode()
        for c in bad
    )
    return text, error.end


codecs.register_error(SHOWN, _shown)


class _Messages(io.TextIOWrapper):
    """Takes messages, and drops them once they cannot be written."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            abandon(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            abandon(self)


def prepare() -> None:
    """Prepare stdin, stdout and stderr of this process."""
    for number, mode in enumerate("rww"):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
            name = ("stdin", "stdout", "stderr")[number]
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=SHOWN)
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding = sys.stderr.encoding
        buffer = sys.stderr.detach()
        sys.stderr = _Messages(buffer, encoding, SHOWN, line_buffering=True)


def finish() -> None:
    """Write out what is left on stdout, so that Python cannot fail at that when it exits.

    Call it last, after the exit status is known; an error in it was told before, or is no error.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        abandon(sys.stdout)


def abandon(stream: TextIO) -> None:
    """Let everything that is still written to ``stream`` go to ``/dev/null``."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
