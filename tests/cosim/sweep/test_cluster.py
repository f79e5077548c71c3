"""How the workers of a sweep end, whatever ends the sweep."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cosim.errors import ClusterError
from cosim.machine import interrupts
from cosim.sweep import cluster


@pytest.fixture
def handled() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    interrupts.install()
    yield
    interrupts.over()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handled")
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
