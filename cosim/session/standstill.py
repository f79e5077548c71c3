"""Notices that a re-execution makes no progress.

QEMU's re-execution waits for ever if it has lost count of the instructions: the recording says that
something happens at an instruction which the guest will not reach.  Nothing in QEMU notices it.
"""

from __future__ import annotations

import time

from cosim.machine import process
from cosim.machine.qemu import Machine

_PATIENCE = 3.0
_TYPED_PATIENCE = 30.0
"""A guest that was typed into waits in real time when it is idle."""
_FEW_TICKS = 2
"""Our own question wakes QEMU up."""


class Standstill:
    """Watches one re-execution.

    :param machine: the machine that re-executes a recording.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._patience = _TYPED_PATIENCE if machine.timing.typed else _PATIENCE
        self._since = time.monotonic()
        self._stops = -1
        self._ticks = 0
        self._instruction: int | None = None

    def at(self, stops: int) -> int | None:
        """Return the instruction at which the guest stands still; None if it does not.

        :param stops: how many stops there were so far.  The guest may be stopped; then others
            decide when it goes on.
        """
        ticks = process.cpu_ticks(self._machine.pid)
        now = time.monotonic()
        if (
            stops != self._stops
            or ticks - self._ticks > _FEW_TICKS
            or not process.asleep(self._machine.pid)
        ):
            self._since, self._stops, self._ticks = now, stops, ticks
            self._instruction = None
        elif now - self._since > self._patience and self._machine.running():
            instruction = self._machine.replay_icount()
            if instruction is not None and instruction == self._instruction:
                return instruction
            # Asked again at the next look.
            self._instruction = instruction
        return None
