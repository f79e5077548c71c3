"""Encrypted connections: one that breaks leaves the others whole."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from distributed.security import Security

from cosim.sweep import tls


class Connections:
    """Makes pairs of connected sockets."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        keys = Security.temporary()
        self._server: ssl.SSLContext = keys.get_listen_args("scheduler")["ssl_context"]
        self._client: ssl.SSLContext = keys.get_connection_args("client")["ssl_context"]

    def pair(self) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
        """Return the server's and the client's end of a connection on which each has spoken."""
        ends = socket.socketpair()
        served: list[ssl.SSLSocket] = []
        thread = threading.Thread(
            target=lambda: served.append(self._server.wrap_socket(ends[0], server_side=True))
        )
        thread.start()
        client = self._stack.enter_context(self._client.wrap_socket(ends[1]))
        thread.join()
        server = self._stack.enter_context(served[0])
        for one, other in ((client, server), (server, client)):
            one.send(b"words")
            assert other.recv(9) == b"words"
        return server, client


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connections]:
    """Connections as a sweep has them."""
    monkeypatch.setattr(ssl.SSLContext, "sslsocket_class", ssl.SSLSocket)
    tls.mend()
    with ExitStack() as stack:
        yield Connections(stack)


def test_a_connection_outlives_one_that_breaks(connections: Connections) -> None:
    broken, peer = connections.pair()
    whole, other = connections.pair()
    peer.close()
    with pytest.raises(OSError, match=r"Broken pipe|EOF occurred"):
        for _ in range(9):
            broken.send(bytes(100_000))
    whole.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        whole.recv_into(bytearray(9))
    other.send(b"still here")
    buffer = bytearray(20)
    assert buffer[: whole.recv_into(buffer)] == b"still here"
    assert whole.send(b"me too") == 6
