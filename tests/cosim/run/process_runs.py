"""What the processes of test_run_processes do: a process imports this module."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from cosim.errors import GuestError
from cosim.models.result import ResultDocument
from cosim.output import note
from cosim.run.run_spec import RunSpec
from tests.cosim.streams import result_document

PATIENCE = 60.0
"""Seconds for what takes a moment on a quiet machine."""


def await_file(path: Path) -> None:
    """Wait until ``path`` is there."""
    limit = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < limit, path
        time.sleep(0.01)


def execute(spec: RunSpec, folder: Path) -> ResultDocument:
    """Do what the workload of ``spec`` says."""
    (folder / "pid").write_text(str(os.getpid()))
    verb, _, word = (spec.workload or "").partition(" ")
    if verb == "meet":
        (folder / "here").touch()
        await_file(folder.parent / word / "here")
    elif verb == "fail":
        raise GuestError("the guest panicked", log="x.log")
    elif verb == "die":
        sys.stderr.write(word)
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "bug":
        raise ZeroDivisionError("a bug")
    elif verb == "say":
        note(f"cosim: {word}")
        sys.stderr.write("and half a line")
    elif verb == "wait":
        try:
            (folder / "waits").touch()
            time.sleep(3600)
        finally:
            (folder / "teardown").touch()
    return result_document()
