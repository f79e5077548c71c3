"""Recording a guest at full speed, so that its run can be replayed and stopped anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from cosim.machine import Machine, Timing
from cosim.plan import Plan

_TICK = 0.25
_PANIC = re.compile(r"Kernel panic|panicked|PANIC", re.IGNORECASE)


def record(
    plan: Plan, log: Path, folder: Path, limit: float, show: Callable[[str, str], None]
) -> str | None:
    """Run the plan's guest, with its dialogue, until it ends or its console shows the region's end.

    :param log: receives the recording.
    :param folder: where the machine's logs go.
    :param limit: when to stop all the same (monotonic seconds); the recording is good up to there.
    :param show: told a few times a second: the phase, and the guest's last line.
    :return: what the guest said when it panicked; None when it did not.
    :raise CosimError: QEMU does not start or dies, the dialogue fails, or the disk is full.
    """
    with Machine(
        plan.qemu.path,
        plan.machine,
        folder=folder,
        name="record",
        timing=Timing("record", log),
        hold=True,
    ) as machine:
        machine.resume()
        for step in plan.spec.console:
            machine.console.expect(step.expect, step.within)
            machine.console.send(step.send)
        pattern = plan.end.pattern
        while not machine.wait(_TICK) and time.monotonic() < limit:
            if pattern and machine.console.seen(pattern):
                break
            show("recording", machine.console.last_line())
        panic = panic_line(machine)
        machine.console.check_log()
    return panic


def panic_line(machine: Machine) -> str | None:
    """What a guest that ended by a reset said of it; None when it did not end so.

    ``panic=1`` on Linux's command line makes a panic a reset, and ``-no-reboot`` that an end.
    """
    if machine.end_reason() not in ("guest-reset", "guest-panic"):
        return None
    lines = machine.console_log.read_text(errors="replace").split("\n")
    last = machine.console.last_line() or "it said nothing"
    said = next((line for line in lines if _PANIC.search(line)), last)
    return re.sub(r"^\[[ 0-9.]+\] *", "", said.strip())
