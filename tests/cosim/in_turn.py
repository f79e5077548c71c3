"""Runs without processes: one after the other, in the process of the test."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from cosim.run.batch import Ended, Execute, Task, WorkOff, attempt


def in_turn(execute: Execute) -> WorkOff:
    """Return what does runs here, in their order."""

    def work_off(tasks: Iterator[Task], count: int) -> Generator[Ended, None, None]:
        for spec, folder in tasks:
            yield spec, attempt(execute, spec, folder)

    return work_off
