"""One real `cosim` process, its children found without their names, and what it left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import guest
from cosim import paths
from cosim.capture.plugin import build

COMMAND = [sys.executable, "-c", "from cosim.start import main; main()"]
_MARK = "COSIM_TEST_PROCESS"
_FORECAST = "--backend plugin sees the same events in seconds"
PATIENCE = 50.0
"""Seconds without progress after which a command counts as hung."""
_WORK = 0.05
"""The processor time, in a second, that a command needs at least if it works.  One that hangs only
polls, which takes less.  One that spins is ended by the time limit of pytest."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def line(self) -> str:
        """The one line on stderr, besides one that says how long gdb needs on a busy machine."""
        lines = [
            line
            for line in self.stderr.split("\n")
            if line.strip() and not line.endswith(_FORECAST)
        ]
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("cosim: "), self.stderr
        return lines[0].removeprefix("cosim: ")

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


class Home:
    """A cache, a folder for temporary files and one for logs, of one command of a test.

    The guests in the cache are the machine's, and so is the compiled plugin, so that they need not
    be made again.

    :param names: guests to make first.
    :param plugin: whether the plugin is there.
    """

    def __init__(self, folder: Path, *names: str, plugin: bool = True) -> None:
        for name in names:
            guest.ensure(name, lambda *_: None)
        self.folder = folder
        self.cache = folder / "cache"
        self.scratch = folder / "scratch"
        for part in (self.cache, self.scratch):
            part.mkdir(parents=True)
        (self.cache / "guests").symlink_to(paths.guests().resolve())
        if plugin:
            (self.cache / "plugin").mkdir()
            shutil.copy2(build.build(), self.cache / "plugin")

    def environment(self) -> dict[str, str]:
        """The environment of a command that is at home here."""
        return {**os.environ, "COSIM_CACHE": str(self.cache), "TMPDIR": str(self.scratch)}

    def leftovers(self) -> list[Path]:
        """What a command left besides logs: sockets, recordings, memory, temporary files."""
        return [
            path
            for part in (self.cache / "sessions", self.scratch)
            for path in part.rglob("*")
            if not path.is_dir() and path.suffix != ".log"
        ]

    def sessions(self) -> list[Path]:
        """The folders of logs that were kept."""
        return sorted((self.cache / "sessions").glob("*"))


class Command:
    """A running `cosim`, in a session of its own; whatever is left of it is killed at the end.

    :param terminal: a terminal for stdin and stderr; without, both are no terminals.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        environment: Mapping[str, str],
        *,
        terminal: int | None = None,
    ) -> None:
        self._mark = f"{_MARK}={uuid.uuid4()}"
        name, value = self._mark.split("=")
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            env={**environment, name: value},
            cwd=paths.SOURCE,
            start_new_session=True,
            preexec_fn=_default_signals,
            text=True,
            errors="replace",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def living(self) -> list[int]:
        """Every process that has the mark of this command in its environment."""
        return [pid for pid, environment in _environments() if self._mark in environment]

    def child(self, *words: str) -> int | None:
        """The child whose command line has all of ``words``."""
        for pid in self.living():
            if pid == self.process.pid:
                continue
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if all(word in line for word in words):
                    return pid
        return None

    def await_child(self, *words: str) -> int:
        """Wait for :meth:`child`."""
        found: list[int] = []

        def there() -> bool:
            pid = self.child(*words)
            found.extend([] if pid is None else [pid])
            return pid is not None

        self.until(there, f"a child with {words}")
        return found[0]

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait until ``reached`` while the command runs and works."""
        patience = Patience(self)
        while not reached():
            if self.process.poll() is not None:
                raise AssertionError(f"ended before {what}: {self.process.communicate()}")
            assert not patience.over(), f"no {what}"
            time.sleep(0.02)

    def work(self, seconds: float) -> None:
        """Wait until the command and its children have used so much more processor time."""
        before = self.used()
        self.until(lambda: self.used() - before >= seconds, f"work of {seconds:g} s")

    def used(self) -> float:
        """Return the processor seconds of the command and its children so far."""
        return sum(map(processor_seconds, self.living()))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def end(self, within: float = PATIENCE) -> Ended:
        """Wait for the end; nothing of the command may be left alive.

        :param within: seconds; on a busy machine more, as long as the command works.
        """
        patience = Patience(self, within)
        while True:
            try:
                stdout, stderr = self.process.communicate(timeout=min(within, 1.0))
                break
            except subprocess.TimeoutExpired:
                if patience.over():
                    raise
        seconds = time.monotonic() - self._started
        self.assert_gone()
        return Ended(self.process.returncode, stdout, stderr or "", seconds)

    def assert_gone(self) -> None:
        """No child of the command is left, or only for a moment."""
        limit = time.monotonic() + 5
        while self.living():
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes()[:200] for pid in self.living()]
            assert time.monotonic() < limit, lines
            time.sleep(0.05)


class Patience:
    """Waits for ``seconds``, and then on while the processes of a command work."""

    def __init__(self, command: Command, seconds: float = PATIENCE) -> None:
        self._command = command
        self._seconds = seconds
        self._begin()

    def over(self) -> bool:
        """Return True if the time is over and the command has hardly worked meanwhile."""
        if time.monotonic() < self._limit:
            return False
        worked = self._command.used() - self._before
        self._begin()
        return worked < _WORK * self._seconds

    def _begin(self) -> None:
        self._before = self._command.used()
        self._limit = time.monotonic() + self._seconds


def processor_seconds(pid: int) -> float:
    """The processor time of a process and of its children that have ended; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def run(words: Sequence[str | Path], environment: Mapping[str, str]) -> Ended:
    """Run one command to its end."""
    with Command(words, environment) as command:
        return command.end()


def _default_signals() -> None:
    # What started the tests may have them ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _environments() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            # A process may end while we look, or be another user's.
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "environ").read_bytes().decode(errors="replace")
