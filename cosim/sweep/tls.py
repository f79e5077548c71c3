"""Encrypted connections of which one may break without the others.

If the peer of a connection has gone, Python's ``ssl`` raises an error of the operating system and
leaves OpenSSL's note of it in place.  The next call for any other connection of that thread finds
the note and fails with it, though nothing is wrong there (CPython issue 148594; seen with Python
3.13 and OpenSSL 3.5, not with Python 3.11 and OpenSSL 3.0).  A sweep's command serves all workers
in one thread, so one lost worker would end the sweep.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


def mend() -> None:
    """Make all encrypted connections that this process opens from now on forget such notes."""
    ssl.SSLContext.sslsocket_class = _Socket


class _Socket(ssl.SSLSocket):
    """A connection whose errors stay its own."""

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        with _forgetting():
            return super().recv_into(buffer, nbytes, flags)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        with _forgetting():
            return super().send(data, flags)

    def do_handshake(self, block: bool = False) -> None:
        with _forgetting():
            super().do_handshake(block)


@contextlib.contextmanager
def _forgetting() -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        # ssl has cleared the notes.
        raise
    except OSError:
        # A file that cannot be opened is an error after which ssl does clear them.
        with contextlib.suppress(OSError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(os.devnull + "/none")
        raise
