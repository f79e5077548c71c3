"""Runs in processes beside each other, none of which outlives this one.

Each process does one run after the other, so it starts and loads the models only once.  If it dies,
its run has failed, and another process does the next one.

A process is in its own session, so Ctrl-C in our terminal does not reach it.  SIGTERM from us ends
it, with the teardown that Ctrl-C has.  If this process is killed, so are these and what they run
(:mod:`cosim.machine.process`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Generator, Iterator
from functools import partial
from multiprocessing import connection
from typing import NoReturn

from cosim import output
from cosim.errors import EnvironmentFault
from cosim.machine import interrupts, process
from cosim.models.result import ResultDocument
from cosim.run.batch import Ended, Execute, Failed, Task, WorkOff, attempt, in_turn

_TEARDOWN = 60.0
"""Seconds in which a run that is to end must have ended, before it is killed (ours)."""
_TICK = 1.0
"""Seconds between two updates of the progress bar."""
_INTERRUPTED = 130


def at_a_time(jobs: int, execute: Execute) -> WorkOff:
    """Return what does ``jobs`` runs at a time: one here, several in processes.

    :param execute: does one run; a function of a module, or a partial of one, because it may be
        pickled.
    """
    return in_turn(execute) if jobs == 1 else in_processes(execute, jobs)


def in_processes(execute: Execute, jobs: int) -> WorkOff:
    """Return what does ``jobs`` runs at a time, each in a process.

    Each line that they write is shown with the name of the run, and one progress bar stands for
    their live views.
    """
    return partial(_work_off, execute, jobs)


def _work_off(
    execute: Execute, jobs: int, tasks: Iterator[Task], count: int
) -> Generator[Ended, None, None]:
    children: list[_Child] = []
    ended = 0
    with contextlib.ExitStack() as stack:
        bar = _Bar(stack.enter_context(output.progress("runs", seconds=True)), count)
        stack.callback(_end, children)
        while True:
            busy = [child for child in children if child.task is not None]
            while len(busy) < jobs and (task := next(tasks, None)) is not None:
                child = next((one for one in children if one.is_free()), None)
                if child is None:
                    with interrupts.deferred():
                        child = _Child(execute)
                        children.append(child)
                child.start(task)
                busy.append(child)
            if not busy:
                return
            bar.show(ended, len(busy))
            for child in _ready(busy):
                found = child.hear()
                if found is not None:
                    ended += 1
                    yield found


def _ready(busy: list[_Child]) -> list[_Child]:
    """Return the children that have said something, after a while at the latest."""
    sources = {number: child for child in busy for number in child.sources()}
    ready = connection.wait(list(sources), _TICK)
    return list(dict.fromkeys(sources[number] for number in ready if isinstance(number, int)))


def _end(children: list[_Child]) -> None:
    """End all processes; those that do a run at the same time."""
    with interrupts.deferred():
        for child in children:
            child.tell_to_end()
        for child in children:
            child.await_end()


class _Bar:
    """The progress over all runs, with the time left at the mean of those that have ended.

    :param step: takes seconds.
    :param count: how many runs there are.
    """

    def __init__(self, step: output.Step, count: int) -> None:
        self._step = step
        self._count = count
        self._begun = time.monotonic()
        self._ended = 0
        self._expected: float | None = None

    def show(self, ended: int, running: int) -> None:
        """Show how many runs have ended, and how many go on."""
        passed = time.monotonic() - self._begun
        if ended > self._ended:
            self._ended, self._expected = ended, passed / ended * self._count
        text = f"runs: {ended}/{self._count} done, {running} running"
        self._step(passed, self._expected, text)


class _Child:
    """A process that does runs, from our side.

    :param execute: does one run there.
    :raises EnvironmentFault: when it cannot be started.
    """

    def __init__(self, execute: Execute) -> None:
        self.task: Task | None = None
        """What it does now."""
        self._line, theirs = connection.Pipe()
        # -P: a folder that happens to be called as a package here is not the package.
        words = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        try:
            self._process = process.spawn(words, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()])
        except OSError as error:
            raise EnvironmentFault(f"a process for runs cannot start: {error}") from error
        finally:
            theirs.close()
        self._stderr = self._process.stderr
        if self._stderr is not None:
            os.set_blocking(self._stderr.fileno(), False)
        self._said = b""
        """The beginning of a line."""
        self._send(execute)

    def is_free(self) -> bool:
        """Return True if it can do a run."""
        return self.task is None and self._process.poll() is None

    def start(self, task: Task) -> None:
        """Let it do ``task``."""
        self.task = task
        self._send(task)

    def _send(self, what: object) -> None:
        # If it has died, hear() says so.
        with contextlib.suppress(ConnectionError):
            self._line.send(what)

    def sources(self) -> list[int]:
        """Return the descriptors by which it may say something."""
        return [one.fileno() for one in (self._line, self._stderr) if one is not None]

    def hear(self) -> Ended | None:
        """Show the lines that it has written; return how its run ended, if it has."""
        assert self.task is not None
        spec, _ = self.task
        self._show_lines(spec.name)
        if not self._line.poll():
            return None
        result: ResultDocument | Failed
        try:
            result = self._line.recv()
        except (EOFError, OSError):
            how = process.how_it_ended(self._process.wait())
            result = Failed(f"the process of this run {how}", EnvironmentFault.exit_status)
        # What it has written before it said so.
        self._show_lines(spec.name, whole=False)
        self.task = None
        return spec, result

    def _show_lines(self, name: str, *, whole: bool = True) -> None:
        """Show what it has written; only whole lines, unless no more will come."""
        if self._stderr is not None:
            with contextlib.suppress(BlockingIOError):
                while chunk := os.read(self._stderr.fileno(), 1 << 16):
                    self._said += chunk
                self._stderr.close()
                self._stderr = None
        *lines, self._said = self._said.split(b"\n")
        if self._said and not whole:
            lines.append(self._said)
            self._said = b""
        for line in lines:
            output.note(f"cosim: {name}: {line.decode(errors='replace').removeprefix('cosim: ')}")

    def tell_to_end(self) -> None:
        """Ask it to end, and hear no more of it."""
        self._line.close()
        if self._stderr is not None:
            # It must not wait until we read.
            self._stderr.close()
        self._process.terminate()

    def await_end(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        try:
            self._process.wait(_TEARDOWN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Do the runs that come through the descriptor that the command line names."""
    try:
        interrupts.install()
        output.start()
        # Who started us may need no more.
        with contextlib.suppress(EOFError, ConnectionError):
            _do_runs(connection.Connection(int(sys.argv[1])))
        interrupts.over()
    except KeyboardInterrupt:
        interrupts.over()
        sys.exit(_INTERRUPTED)


def _do_runs(line: connection.Connection) -> NoReturn:
    """Do the runs that come through ``line``.

    :raises EOFError: when no more will come.
    :raises ConnectionError: when nobody waits for a result any more.
    """
    execute: Execute = line.recv()
    while True:
        spec, folder = line.recv()
        try:
            result = attempt(execute, spec, folder)
        except Exception as error:
            output.note_lines(traceback.format_exc())
            why = f"a bug in cosim ({type(error).__name__}); please report the lines above"
            result = Failed(why, EnvironmentFault.exit_status)
        line.send(result)


if __name__ == "__main__":
    main()
