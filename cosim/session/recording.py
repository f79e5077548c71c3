"""Recording a guest at full speed, so that its run can be re-executed and stopped anywhere."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cosim.errors import StorageError
from cosim.machine import interrupts
from cosim.machine.configuration import Timing
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan

_TICK = 0.25
_PANIC = re.compile(r"Kernel panic|panicked at|\bpanic: |\bPANIC\b")
_PANIC_END = re.compile(r"end Kernel panic|Rebooting in \d+ seconds")
_SPARE = 64 << 10


@dataclass(frozen=True)
class Recorded:
    """How a recording ended."""

    reason: str | None
    """Why the guest ended (:meth:`Machine.end_reason`); None if the recording was cut."""
    late: bool
    """True if the time limit cut it."""
    panic: str | None
    """What the guest said when it panicked."""
    instructions: int | None
    """Instructions that the guest had executed when QEMU ended it, by QEMU's count."""


def record(
    plan: Plan, log: Path, folder: Path, limit: float, show: Callable[[str, str], None]
) -> Recorded:
    """Run the plan's guest, with its dialogue, until it ends or its console shows the region's end.

    :param log: receives the recording.
    :param folder: where the machine's logs go.
    :param limit: when to stop in any case (monotonic seconds).  The recording is good up to there.
    :param show: is told the phase and the guest's last line a few times a second.
    :raises CosimError: when QEMU does not start or dies, the dialogue fails, or the disk is full.
    """
    with Machine(
        plan.qemu.path,
        plan.machine,
        folder=folder,
        name="record",
        timing=Timing("record", log, typed=plan.typed),
        hold=True,
    ) as machine:
        machine.resume()
        with interrupts.allowed():
            for step in plan.console:
                machine.console.expect(step.expect, step.within)
                machine.console.send(step.send)
        late = not _run(machine, plan.end.pattern, limit, show)
        reason = machine.end_reason()
        executed = None if reason is None else machine.replay_icount()
        recorded = Recorded(reason, late, panic_line(machine), executed)
        machine.quit()
        machine.console.check_log()
    _check_whole(log, folder)
    return recorded


@contextmanager
def nameless_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a file on the disk of ``folder`` that disappears when this process ends."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from None
    with file:
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _run(machine: Machine, pattern: str, limit: float, show: Callable[[str, str], None]) -> bool:
    """Wait for the guest's end or what stands for it; return False if ``limit`` came first."""
    while not machine.wait(_TICK):
        interrupts.check()
        last = machine.console.last_line()
        # Without panic=-1 on its command line, a kernel that panicked waits for ever.
        if _PANIC_END.search(last) or (pattern and machine.console.seen(pattern)):
            return True
        if time.monotonic() > limit:
            return False
        show("recording", last)
    return True


def _check_whole(log: Path, folder: Path) -> None:
    # QEMU goes on if it cannot write its recording, so check that there is still space.
    try:
        with tempfile.TemporaryFile(dir=folder) as spare:
            spare.write(bytes(_SPARE))
    except OSError as error:
        size = log.stat().st_size >> 10
        raise StorageError(
            f"no space for the recording in {folder} ({error.strerror} after {size} KiB); "
            "free space, or choose a folder with --logs or COSIM_CACHE"
        ) from None


def has_panicked(machine: Machine) -> bool:
    """Return True if the guest said last that it panicked, and now waits for ever."""
    return _PANIC_END.search(machine.console.last_line()) is not None


def panic_line(machine: Machine) -> str | None:
    """Return what a guest that panicked said about it; None if it did not panic.

    ``panic=-1`` on Linux's command line turns a panic into a reset, and QEMU's ``-no-reboot`` turns
    that into an end.
    """
    last = machine.console.last_line()
    reason = machine.end_reason()
    panicked = reason == "guest-panic" or _PANIC_END.search(last) is not None
    if not panicked and reason != "guest-reset":
        return None
    lines = machine.console_log.read_text(errors="replace").split("\n")
    said = next((line for line in lines if _PANIC.search(line)), None)
    if said is None:
        if not panicked:
            # The guest reset itself on purpose if it did not report a panic.
            return None
        said = last or "it said nothing"
    return re.sub(r"^\[[ 0-9.]+\] *", "", said.strip())
