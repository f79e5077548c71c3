"""Saves a guest at one place, so that runs can start there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cosim.capture import marks
from cosim.capture.gdb.stopped_guest import StoppedGuest
from cosim.debugger.registers import read_description
from cosim.debugger.rsp import Stub
from cosim.errors import GuestError, StorageError
from cosim.machine import guest_timers, interrupts, snapshot
from cosim.machine.configuration import RAM_BASE, Timing, ticks
from cosim.machine.qemu import Machine
from cosim.machine.snapshot import Head
from cosim.run.plan import Plan
from cosim.run.region import Edge
from cosim.session.recording import last_words

_TICK = 0.1
_STOP_SECONDS = 20.0
_TICK_MILLISECONDS = 0.02
"""When a breakpoint stops the guest, QEMU takes it for idle and lets guest time jump to the next
timer.  So there is always one that is near."""
_WITHOUT_RUN_STATE = ("-global", "migration.store-global-state=off")
"""QEMU would save that its guest was stopped by a debugger, and abort where that is loaded."""


def save(
    plan: Plan, at: Edge, output: Path, folder: Path, limit: float, show: Callable[[str, str], None]
) -> Head:
    """Boot the plan's guest, stop it at ``at``, and write the snapshot ``output``.

    :param folder: where the machine's logs go.
    :param limit: when to give up (monotonic seconds).
    :param show: is told the phase and the guest's last line a few times a second.
    :return: what the snapshot says of itself.
    :raises StorageError: when a file cannot be written.
    :raises CosimError: when the guest does not come to ``at``, or QEMU cannot save it.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from None
    with (
        file as state,
        Machine(
            plan.qemu.path,
            plan.machine,
            folder=folder,
            name="snapshot",
            timing=Timing("icount"),
            stub=True,
            hold=True,
            plugin_arguments=(*_WITHOUT_RUN_STATE, *ticks(_TICK_MILLISECONDS)),
            pass_fds=(state.fileno(),),
        ) as machine,
    ):
        stub = Stub(machine.stub)
        stub.start()
        guest = StoppedGuest(stub)
        _Way(plan, at, machine, stub, guest, limit, show).go()
        pc = guest.read("pc")
        sstatus = read_description(stub).number["sstatus"]
        timers = guest_timers.commands(sstatus, stub.ask(*guest_timers.questions(sstatus)))
        show("saving", "")
        machine.save(state)
        state.seek(0, 2)
        head = Head(
            machine=plan.made_from(),
            at=at.text,
            pc=pc,
            said=machine.console.last_line(),
            timers=tuple(timers),
            state_bytes=state.tell(),
            ram=tuple((first - RAM_BASE, size) for first, size in machine.ram_extents()),
        )
        state.seek(0)
        snapshot.write(output, head, state, machine.ram)
    return head


class _Way:
    """The guest's way to the place where it is saved."""

    def __init__(
        self,
        plan: Plan,
        at: Edge,
        machine: Machine,
        stub: Stub,
        guest: StoppedGuest,
        limit: float,
        show: Callable[[str, str], None],
    ) -> None:
        self._plan = plan
        self._at = at
        self._machine = machine
        self._stub = stub
        self._guest = guest
        self._limit = limit
        self._show = show

    def go(self) -> None:
        """Let the guest run until it stands there."""
        at = self._at
        address = {"mark": self._plan.mark_at, "address": at.address}.get(at.form)
        if address is None:
            self._until_printed()
            return
        self._stub.command(b"Z0,%x,4" % address)
        self._run(b"vCont;c")
        while at.form == "mark" and marks.label(self._guest.read_general()) != at.label:
            self._run(b"vCont;s")
            self._run(b"vCont;c")
        self._stub.command(b"z0,%x,4" % address)

    def _until_printed(self) -> None:
        self._stub.resume(b"vCont;c")
        while not self._machine.console.seen(self._at.pattern):
            self._wait()
        self._stub.interrupt()
        if self._stub.stop(_STOP_SECONDS) is None:
            raise GuestError(
                f"QEMU did not stop its guest within {_STOP_SECONDS:g} s",
                log=str(self._machine.stderr_log),
            )

    def _run(self, payload: bytes) -> None:
        """Let the guest run until it stops."""
        self._stub.resume(payload)
        while not self._wait():
            pass

    def _wait(self) -> bool:
        """Wait a little; return True if the guest has stopped.

        :raises GuestError: when the guest has ended, or the time is over.
        """
        interrupts.check()
        last = self._machine.console.last_line()
        self._show("booting", last)
        stopped = self._stub.stop(_TICK) is not None
        if self._machine.ended():
            raise self._failed("the guest ended")
        if not stopped and time.monotonic() > self._limit:
            raise self._failed("the time limit passed")
        return stopped

    def _failed(self, what: str) -> GuestError:
        place = self._plan.names.setting("at", self._at.text)
        return GuestError(
            f"{what} before the place of the snapshot ({place}); "
            f"{last_words(self._machine.console.last_line())}",
            log=str(self._machine.console_log),
        )
