"""What the batch systems of the tests have in common, and the daemons that they are made of."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

QUEUE = "short"
"""The name of the one queue, which has four slots."""
_PATIENCE = 60.0
"""Seconds in which the daemons must be ready, on a busy machine."""


@dataclass(frozen=True)
class BatchSystem:
    """A batch system that runs, for one user."""

    kind: str
    """What a sweep file calls it."""
    environment: Mapping[str, str]
    """What commands that are to use it need in their environment."""
    listing: Callable[[BatchSystem], list[str]]
    hold: str
    """The directive of a job that is to wait."""
    cancel: str
    """What a job says to a shell to cancel itself."""
    logs: str
    """The pattern of the names of the jobs' logs, one for each job."""
    refusal: str
    """The pattern of what it says of a job for a queue that is not there."""

    def ask(self, *words: str) -> str:
        """Run a command of the batch system; return what it prints."""
        environment = {**os.environ, **self.environment}
        program = shutil.which(words[0], path=environment["PATH"])
        assert program is not None, words[0]
        return subprocess.run(
            [program, *words[1:]],
            env=environment, capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that wait or run, without those that are being ended."""
        return self.listing(self)

    def empty(self, *words: str) -> None:
        """End all jobs with a command, so that none outlives the daemons."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.ask(*words)
        limit = time.monotonic() + 20
        while self.jobs() and time.monotonic() < limit:
            time.sleep(0.05)


class Daemons:
    """Daemons that end with the context, the last one first.

    :param folder: of their output.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for daemon in reversed(self._started):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def start(self, *words: str) -> None:
        """Start a daemon, which must stay in the foreground."""
        with (self._folder / f"{Path(words[0]).name}.out").open("wb") as log:
            daemon = subprocess.Popen(
                [program(words[0]), *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        self._started.append(daemon)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for ``reached`` while all daemons live."""
        limit = time.monotonic() + _PATIENCE
        while not reached():
            alive = all(daemon.poll() is None for daemon in self._started)
            if not alive or time.monotonic() > limit:
                logs = [log.read_text(errors="replace") for log in self._folder.glob("*.out")]
                raise AssertionError("the batch system does not start:\n" + "\n".join(logs))
            time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Return ports that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def program(name: str) -> str:
    """Return the path of a program, by its name or path."""
    # An ordinary user has no /usr/sbin in PATH.
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"{name} is missing; run scripts/setup --tests"
    return found
