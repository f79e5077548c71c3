"""Recording a guest at full speed, so that its run can be re-executed and stopped anywhere."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cosim.errors import StorageError
from cosim.machine import interrupts, shutdown_order
from cosim.machine.configuration import Timing
from cosim.machine.qemu import Machine
from cosim.run.plan import Plan
from cosim.session import dialogue
from cosim.session.protocol import Note
from cosim.session.splits import Splits
from cosim.session.trap_loop import TrapLoop, TrapLoops, again

_TICK = 0.25
_PANIC = re.compile(r"Kernel panic|panicked at|\bpanic: |\bPANIC\b")
_PANIC_END = re.compile(r"end Kernel panic|Rebooting in \d+ seconds")
_NEEDS_DISK = re.compile(
    r"virtio disk|mount root|root device|no bootable|no (block|boot|disk) device|/dev/[vs]d[a-z]",
    re.IGNORECASE,
)
"""What kernels and firmware say when they find no disk, or not the one that they want."""
_SPARE = 64 << 10
_HEAD_BYTES = 4
"""A recording starts with the version of its format."""


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
    last_line: str = ""
    """What the guest printed last."""
    loop: TrapLoop | None = None
    """Where the guest traps without end; QEMU was killed then, and its recording completed."""
    trap: str = ""
    """What a message says about that loop, or adds about a trap that the guest took again and again
    when the time limit cut the recording."""
    split: frozenset[int] = frozenset()
    """What a re-execution must split as well (:attr:`Timing.split`)."""
    unsplit: frozenset[int] = frozenset()
    """What should have been split, too (:meth:`~cosim.session.splits.Splits.fresh`)."""


class Beside(Protocol):
    """What listens to the guest while it is recorded."""

    arguments: tuple[str, ...]
    """QEMU's arguments for it."""
    pass_fds: tuple[int, ...]
    """Descriptors that QEMU inherits for it."""

    def listen(self, machine: Machine) -> AbstractContextManager[None]:
        """Listen to the machine, which is about to run, until it has ended."""

    def region_ended(self) -> bool:
        """Return True if the region has ended, so that the recording can."""

    def stop(self) -> None:
        """Hear no more, since the time is up.

        A guest that traps all the time keeps QEMU from hearing that it is to end.
        """

    def before_kill(self, machine: Machine) -> None:
        """Take in what is left: the guest traps without end, and its QEMU has to be killed."""


def _nobody(_: str) -> None:
    pass


def record(
    plan: Plan,
    log: Path,
    folder: Path,
    limit: float,
    show: Callable[[str, str], None],
    note: Note = _nobody,
    *,
    beside: Beside | None = None,
    split: frozenset[int] = frozenset(),
    everywhere: bool = True,
) -> Recorded:
    """Run the plan's guest, with its dialogue, until it ends or its region does.

    Without ``beside``, only the console can show the end of the region.

    :param log: receives the recording.
    :param folder: where the machine's logs go.
    :param limit: when to stop in any case (monotonic seconds).  The recording is good up to there.
    :param show: is told the phase and the guest's last line a few times a second.
    :param beside: listens to the guest, and knows when the region has ended.
    :param split: what :attr:`Recorded.unsplit` of recordings before this one say.
    :param everywhere: the re-execution may stop anywhere, not only at events and edges.
    :param note: is told what the guest has not taken of the dialogue.
    :raises CosimError: when QEMU does not start or dies, the dialogue fails, or the disk is full.
    """
    splits = Splits(plan, everywhere=everywhere)
    with Machine(
        plan.qemu.path,
        plan.machine,
        folder=folder,
        name="record",
        timing=Timing("record", log, typed=plan.typed, split=frozenset()),
        stub=True,
        hold=True,
        plugin_arguments=() if beside is None else beside.arguments,
        pass_fds=() if beside is None else beside.pass_fds,
    ) as machine:
        split |= splits.first(machine)
        machine.split(split)
        loops = TrapLoops(machine)
        with nullcontext() if beside is None else beside.listen(machine):
            machine.resume()
            with interrupts.allowed():
                dialogue.hold(
                    *(machine.console, plan.console, note),
                    lambda: (
                        loops.look() is not None
                        or has_panicked(machine, loops)
                        or time.monotonic() > limit
                    ),
                )
            over = (
                beside.region_ended
                if beside is not None
                else lambda: bool(plan.end.pattern) and machine.console.seen(plan.end.pattern)
            )
            late = not _run(machine, over, limit, show, loops)
            if late and beside is not None:
                beside.stop()
            panicked = not over() and has_panicked(machine, loops)
            loop = loops.look()
            last_line = machine.console.last_line()
            if loop is None:
                reason = machine.end_reason()
                executed = None if reason is None else machine.replay_icount()
                panic = panic_line(machine, stopped=panicked)
                more = splits.fresh(machine, split)
                trap = again(loops, plan, machine.ram_words()) if late else ""
                recorded = Recorded(
                    *(reason, late, panic, executed, last_line, None, trap, split, more)
                )
                loop = _quit(machine, loops)
            if loop is not None:
                if beside is not None and not beside.region_ended():
                    beside.before_kill(machine)
                machine.kill()
                more = splits.at(loop.pc, machine, split)
                trap = loop.describe(plan, machine.ram_words())
                recorded = Recorded(*(None, False, None, None, last_line, loop, trap, split, more))
        machine.console.check_log()
    _check_whole(log, folder)
    if recorded.loop is not None:
        complete(log, plan, folder)
    elif recorded.reason is not None and plan.qemu.version >= (8,):
        # QEMU 7.2 exits at once and writes no shutdown.
        shutdown_order.mend_file(log)
    return recorded


@contextmanager
def nameless_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a file on the disk of ``folder`` that disappears when this process ends.

    :raises StorageError: when the file cannot be made.
    """
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from None
    with file:
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def complete(log: Path, plan: Plan, folder: Path) -> None:
    """Make a recording that QEMU could not finish one that QEMU re-executes.

    QEMU writes the head last.  The same QEMU writes the same head into each recording.
    """
    with (
        nameless_file(folder) as other,
        Machine(
            plan.qemu.path,
            plan.machine,
            folder=folder,
            name="head",
            timing=Timing("record", other, typed=plan.typed, split=frozenset()),
        ) as machine,
    ):
        machine.quit()
        head = other.open("rb").read(_HEAD_BYTES)
    with log.open("r+b") as file:
        file.write(head)


def _run(
    machine: Machine,
    over: Callable[[], bool],
    limit: float,
    show: Callable[[str, str], None],
    loops: TrapLoops,
) -> bool:
    """Wait for the guest's end or what stands for it; return False if ``limit`` came first."""
    while not machine.wait(_TICK):
        interrupts.check()
        machine.check_disks()
        if loops.look() is not None:
            return True
        # Without panic=-1 on its command line, a kernel that panicked waits for ever.
        if has_panicked(machine, loops) or over():
            return True
        if time.monotonic() > limit:
            return False
        show("recording", machine.console.last_line())
    return True


def _quit(machine: Machine, loops: TrapLoops) -> TrapLoop | None:
    """End QEMU in order; return the trap loop that keeps it from hearing that, if there is one."""
    found: list[TrapLoop] = []

    def looping() -> bool:
        found[:] = filter(None, [loops.look()])
        return bool(found)

    return None if machine.quit(looping) else found[0]


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


def last_words(line: str) -> str:
    """Return in words what the guest said last.

    :param line: the last line on its console; empty if there was none.
    """
    return f"its last line was {line!r}{needs(line)}" if line else "it printed nothing"


def needs(said: str) -> str:
    """Return what to do about a guest that said that it lacks a device; empty if it did not.

    :param said: a line of its console.
    """
    if _NEEDS_DISK.search(said):
        return "; give it a disk with --disk, or choose another bus for the one that it has"
    return ""


def has_panicked(machine: Machine, loops: TrapLoops | None) -> bool:
    """Return True if the guest said last that it panicked, and now waits for ever.

    Linux says when it does.  Other kernels say that they panic, and jump to where they are.

    :param loops: looks at the guest from time to time; None: nobody does.
    """
    last = machine.console.last_line()
    if _PANIC_END.search(last):
        return True
    return loops is not None and _PANIC.search(last) is not None and loops.spins()


def panic_line(machine: Machine, *, stopped: bool = False) -> str | None:
    """Return what a guest that panicked said about it; None if it did not panic.

    ``panic=-1`` on Linux's command line turns a panic into a reset, and QEMU's ``-no-reboot`` turns
    that into an end.

    :param stopped: the guest was ended because :func:`has_panicked` said so.
    """
    last = machine.console.last_line()
    reason = machine.end_reason()
    panicked = stopped or reason == "guest-panic" or _PANIC_END.search(last) is not None
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
