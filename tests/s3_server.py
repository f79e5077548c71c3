"""A real S3 server on loopback (`rclone serve s3`), and a wire to it that counts and can break."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import IO

REGION = "us-east-1"
_SERVES = re.compile(rb"\[http://([0-9.:]+)/\]")


class S3Server:
    """A running server; its buckets are the folders of ``folder``."""

    def __init__(self, folder: Path, address: str, key: str, secret: str) -> None:
        self.folder = folder
        self.address = address
        self.key = key
        self.secret = secret

    def environment(self, *, address: str | None = None) -> dict[str, str]:
        """What a user sets to use the server.

        :param address: reach it through this one.
        """
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://{address or self.address}",
            # This server does not know the checksums that Amazon's clients add by default.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server that ends with the context; a folder in ``folder`` is a bucket."""
    program = Path(str(files("rclone_api"))) / "bin" / "rclone"
    key, secret = f"KEY{secrets.token_hex(8)}", f"SECRET{secrets.token_hex(16)}"
    # A file and no pipe: nothing has to read it to its end.
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [
                *(str(program), "serve", "s3", "--config", "/dev/null", "--addr", "127.0.0.1:0"),
                *("--auth-key", f"{key},{secret}", "--dir-cache-time", "0s"),
                str(folder),
            ],
            stdin=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        try:
            while (found := _SERVES.search(_said(log))) is None:
                assert process.poll() is None, "the S3 server did not start"
                time.sleep(0.02)
            yield S3Server(folder, found[1].decode(), key, secret)
        finally:
            process.kill()


def _said(log: IO[bytes]) -> bytes:
    return os.pread(log.fileno(), 1 << 16, 0)


class Wire:
    """Passes on what goes between clients and a server, and counts it."""

    def __init__(self, server: str) -> None:
        self._server: tuple[str, int] | None = _endpoint(server)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self.received = 0
        """Bytes that the server sent."""
        self.connections = 0
        self.cut_after: int | None = None
        """Break each connection on which the server has sent as many bytes."""
        self.cut_connections = 1 << 30
        """How many more connections to break."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Break all connections and take no more."""
        with suppress(OSError):
            # This wakes the thread that accepts.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._break_all()

    def lead_to(self, server: S3Server | None) -> None:
        """Break all connections, and lead to ``server`` from now on; None: to nobody."""
        self._server = _endpoint(server.address) if server else None
        self._break_all()

    def _break_all(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            if self._server is None:
                client.close()
                continue
            server = socket.create_connection(self._server)
            self._ends += [client, server]
            for pair in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                if counted:
                    self.received += len(data)
                    if self._breaks(passed):
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _breaks(self, passed: int) -> bool:
        if self.cut_after is None or passed <= self.cut_after or not self.cut_connections:
            return False
        self.cut_connections -= 1
        return True


def _endpoint(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextmanager
def wire(server: S3Server) -> Iterator[Wire]:
    """A wire to ``server``."""
    between = Wire(server.address)
    try:
        yield between
    finally:
        between.close()
