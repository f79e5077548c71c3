"""Ctrl-C and SIGTERM with real signals: at once, or held back and then acted on."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
import weakref
from pathlib import Path

import pytest

from cosim.machine import interrupts

pytestmark = pytest.mark.usefixtures("handled_signals")


def _arrive(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_outside_of_a_deferred_part_at_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        _arrive(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_part_is_finished_first(number: signal.Signals) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():
        with interrupts.deferred():
            _arrive(number)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    interrupts.check()


def test_an_import_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As numba's modules do: one that cannot be loaded is reported as a broken package.
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    whole = True\n"
        "except KeyboardInterrupt:\n"
        "    raise ImportError('failed to import')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("interrupted_module")
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert module.whole


def test_one_that_python_drops_comes_again() -> None:
    class Part:
        pass

    part = Part()
    reference = weakref.ref(part, lambda gone: _arrive(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        del part
        time.sleep(10)
    assert reference() is None


def test_a_check_acts_once() -> None:
    with interrupts.deferred():
        _arrive(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.check()


def test_an_allowed_part_lets_them_through() -> None:
    with interrupts.deferred():
        _arrive(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            raise AssertionError("entered with a request held back")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            _arrive(signal.SIGINT)
        _arrive(signal.SIGINT)
        interrupts.over()


def test_the_end_of_a_command_is_not_interrupted() -> None:
    with interrupts.deferred():
        _arrive(signal.SIGINT)
        interrupts.over()
    _arrive(signal.SIGTERM)
    interrupts.check()
    assert not interrupts.pending()


def test_the_error_of_a_deferred_part_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="mine"), interrupts.deferred():
        _arrive(signal.SIGINT)
        raise ValueError("mine")
    with pytest.raises(KeyboardInterrupt):
        _arrive(signal.SIGINT)


def test_another_thread_defers_nothing() -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with interrupts.deferred():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    try:
        with pytest.raises(KeyboardInterrupt):
            _arrive(signal.SIGINT)
    finally:
        leave.set()
        thread.join(10)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.install()
    _arrive(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
