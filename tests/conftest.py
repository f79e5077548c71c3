"""What holds for all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from cosim.machine import interrupts

# How long an example takes depends on what else the machine does.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


@pytest.fixture
def handled_signals() -> Iterator[None]:
    """Signals are handled as in the command, whatever handled them before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    # What started the tests may have ignored some, and then the command would, too.
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    hook = sys.unraisablehook
    interrupts.install()
    yield
    interrupts.over()
    sys.unraisablehook = hook
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Put the files that take longest first if several workers share the tests.

    Otherwise one worker may begin with such a file at the end, while the others have no work left.
    """
    if hasattr(session.config, "workerinput"):
        # All tests of a file have one key, so they stay together and in their order.
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """Return 0 if the test's file takes minutes, 1 if it starts guests, 2 otherwise."""
    file = item.getparent(pytest.Module)
    marks = [] if file is None else [mark.name for mark in file.own_markers]
    return 0 if "long" in marks else 1 if "system" in marks else 2
