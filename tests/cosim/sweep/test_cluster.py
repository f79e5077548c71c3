"""How the workers of a sweep are reached, and how they end, whatever ends the sweep."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import distributed
import pytest

from cosim.errors import ClusterError
from cosim.sweep import cluster


@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("where", ["start", "tasks"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ClusterError])
def test_a_second_interruption_cuts_no_teardown_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, error: type[BaseException]
) -> None:
    ended = []

    def end() -> None:
        signal.raise_signal(signal.SIGINT)
        ended.append(True)

    def start(stack: ExitStack, *_: Any) -> None:
        stack.callback(end)
        stack.callback(end)
        if where == "start":
            raise error("one")

    monkeypatch.setattr(cluster, "_prepare", lambda _: None)
    monkeypatch.setattr(cluster, "_start", start)
    with pytest.raises(KeyboardInterrupt), cluster.opened(cluster.Wish(), tmp_path, print):
        raise error("two")
    assert len(ended) == 2


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "missing port number"),
        ("http://127.0.0.1:8786", "unknown address scheme 'http'"),
        ("tcp://127.0.0.1:1", "no answer in 1 s"),
        ("tcp://127.0.0.1:{silent}", "no answer in 1 s"),
    ],
)
def test_no_client_is_made_where_no_scheduler_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent_port: int, address: str, why: str
) -> None:
    """Such a client takes twice the time to end, and a traceback."""

    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("a client was made")

    monkeypatch.setattr(distributed, "Client", made)
    monkeypatch.setattr(cluster, "_prepare", lambda _: None)
    monkeypatch.setattr(cluster, "_ANSWER", 1.0)
    wish = cluster.Wish(scheduler=address.format(silent=silent_port))
    with (
        pytest.raises(ClusterError, match=f"no scheduler of Dask answers there \\({why}"),
        cluster.opened(wish, tmp_path, print),
    ):
        raise AssertionError("there is no scheduler")
