"""One QEMU process: launched stopped, its RAM mapped by us, torn down on every path.

Nothing of a machine that runs has a name in the file system but its logs: guest RAM is an anonymous
memory file and the QMP, stub and serial lines are socket pairs and pipes that QEMU inherits, so
there is nothing to leave behind, whatever ends the tool.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from qemu.qmp.error import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol
from qemu.qmp.protocol import ConnectError

from cosim.errors import CosimError, MachineError, StorageError, UsageError
from cosim.machine import interrupts, process
from cosim.machine.console import Console

RAM_BASE = 0x8000_0000
"""Physical address of RAM on QEMU's ``virt`` board."""

OFF_SWITCH = 0x10_0000
"""Physical address of the device by which the board is switched off or reset."""

_TICKS = (
    *("-netdev", "hubport,id=nowhere,hubid=0"),
    *("-object", "filter-buffer,id=ticks,netdev=nowhere,interval=100000"),
)
"""A timer of QEMU's own every 100 ms of guest time, which the guest does not see.

QEMU's main loop has a turn only when the guest has come to the next timer, and a recording that
goes on for 2^31 instructions without one aborts in replay_advance_current_icount.  So without
these ticks a guest that spins with no timer of its own set, as many do when they have switched
the machine off, could be neither stopped nor recorded.
"""
_PIPE_BYTES = 1 << 20
"""The most that Linux grants anybody (fs.pipe-max-size)."""
_QMP_SECONDS = 20.0
_SHORT_SECONDS = 2.0
_QUIT_SECONDS = 30.0


@dataclass(frozen=True)
class MachineConfig:
    """What the guest is and what it runs on; everything that makes two runs the same.

    ``memory`` is in bytes.  ``bios`` is None for QEMU's own OpenSBI, ``"none"`` to start the
    kernel in M-mode, or a firmware file.  ``extra`` are further QEMU arguments.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = ""
    bios: str | None = None
    memory: int = 512 << 20
    cpu: str = "rv64"
    harts: int = 1
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """How the guest's time runs.

    ``live``: wall clock.  ``icount``: deterministic.  ``record``/``replay``: deterministic, and
    written to / read from ``log``, so that the run can be stopped anywhere, as often as wanted.
    """

    mode: Literal["live", "icount", "record", "replay"] = "icount"
    log: Path | None = None
    typed: bool = False
    """Something is typed into the guest while it is recorded.  Then it must wait in real time when
    it is idle, or QEMU never takes the input, and two recordings differ; a recording is replayed
    as it was made."""

    @property
    def takes_input(self) -> bool:
        """Whether the guest's console can be typed into."""
        return self.typed or self.mode not in ("record", "replay")

    def arguments(self) -> list[str]:
        """The QEMU arguments of this mode (qemu-gdb-facts, "Determinism")."""
        if self.mode == "live":
            return []
        icount = f"shift=0,sleep={'on' if self.typed else 'off'}"
        ticks: tuple[str, ...] = ()
        if self.mode != "icount":
            if self.log is None:
                raise UsageError(f"timing mode {self.mode} needs a log file")
            icount += f",rr={self.mode},rrfile={_comma(self.log)}"
            ticks = _TICKS
        return [
            *("-icount", icount, "-seed", "1"),
            *("-rtc", "base=2024-01-01T00:00:00,clock=vm"),
            *ticks,
        ]


def arguments(qemu: Path, config: MachineConfig, timing: Timing) -> list[str]:
    """The command line of QEMU that says what it runs and how: what two equal runs share."""
    words = [
        *(str(qemu), "-nodefaults", "-display", "none", "-no-reboot", "-net", "none"),
        *("-machine", "virt,memory-backend=ram", "-smp", str(config.harts)),
        *("-cpu", config.cpu, "-m", f"{config.memory >> 10}K"),
        *("-kernel", str(config.kernel)),
    ]
    if config.initrd:
        words += ["-initrd", str(config.initrd)]
    if config.append:
        words += ["-append", config.append]
    if config.bios:
        words += ["-bios", config.bios]
    return [*words, *timing.arguments(), *config.extra]


def parse_memory(text: str) -> int:
    """Bytes of a size such as ``512M`` or ``2G`` (a bare number is in MiB, as in QEMU).

    :raise UsageError: when it is no size.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip().upper())
    if not match or int(match[1]) == 0:
        raise UsageError(f"{text!r} is no memory size; write for example 512M or 2G")
    return int(match[1]) << {"K": 10, "": 20, "M": 20, "G": 30}[match[2]]


def _comma(path: Path) -> str:
    # QEMU's option parser wants a comma in a value doubled.
    return os.fspath(path).replace(",", ",,")


@dataclass
class Lines:
    """What connects us to one machine: socket pairs, and pipes for its console."""

    ours: dict[str, socket.socket | FileIO] = field(default_factory=dict)
    theirs: dict[str, socket.socket | FileIO] = field(default_factory=dict)

    def add(self, name: str) -> int:
        """Make the socket pair ``name``; return QEMU's descriptor."""
        self.ours[name], self.theirs[name] = socket.socketpair()
        return self.theirs[name].fileno()

    def add_output(self, name: str) -> int:
        """Make the pipe ``name`` on which QEMU writes; return QEMU's descriptor."""
        ours, theirs = os.pipe()
        self.ours[name], self.theirs[name] = FileIO(ours), FileIO(theirs, "w")
        return theirs

    def add_input(self, name: str) -> int:
        """Make the pipe ``name`` from which QEMU reads; return QEMU's descriptor."""
        theirs, ours = os.pipe()
        self.ours[name], self.theirs[name] = FileIO(ours, "w"), FileIO(theirs)
        return theirs

    def pair(self, name: str) -> socket.socket:
        """Our end of the socket pair ``name``."""
        end = self.ours[name]
        assert isinstance(end, socket.socket)
        return end

    def pipe(self, name: str) -> FileIO | None:
        """Our end of the pipe ``name``; None: there is none."""
        end = self.ours.get(name)
        assert not isinstance(end, socket.socket)
        return end

    def close(self, *sides: Mapping[str, socket.socket | FileIO]) -> None:
        """Close every line of ``sides``."""
        for side in sides:
            for line in side.values():
                line.close()


class Machine:
    """One QEMU process and all that belongs to it.

    A context manager: entering launches QEMU with the guest stopped, leaving ends it, whatever
    happened in between.  The lines are ``console`` (the UART), ``qmp`` and, when ``stub`` is
    true, ``stub`` (the remote protocol, for one client).

    :param qemu: the program.
    :param config: guest and board.
    :param timing: how time runs.
    :param folder: where the logs go; exists.
    :param stub: give the machine a gdb stub on a socket pair.
    :param hold: when the guest ends, keep QEMU with the guest stopped for inspection.
    :param plugin_arguments: further arguments of a TCG plugin.
    :param pass_fds: further descriptors that QEMU inherits.
    :param gdb: a Unix socket to make, at which QEMU's stub waits for a gdb that is not ours.
    """

    def __init__(
        self,
        qemu: Path | str,
        config: MachineConfig,
        *,
        folder: Path,
        timing: Timing | None = None,
        stub: bool = False,
        hold: bool = False,
        plugin_arguments: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
        gdb: Path | None = None,
        name: str = "guest",
    ) -> None:
        self.qemu = Path(qemu)
        self.config = config
        self.timing = timing or Timing()
        self.folder = folder
        self.name = name
        self._want_stub = stub
        self._hold = hold
        self._plugin_arguments = plugin_arguments
        self._pass_fds = pass_fds
        self._gdb = gdb
        self._lines = Lines()
        self._process: subprocess.Popen[bytes] | None = None
        self._ram_fd = -1
        self._ram: mmap.mmap | None = None
        self._qmp: QEMUMonitorProtocol | None = None
        self._console: Console | None = None
        self._events: list[dict[str, Any]] = []
        self.stderr_log = folder / f"{name}.qemu.log"
        self.console_log = folder / f"{name}.console.log"

    # -- life ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            # An interruption held back until here comes before anybody can leave us.
            with interrupts.deferred():
                self._launch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def arguments(self) -> list[str]:
        """QEMU's command line without the lines' descriptors."""
        return arguments(self.qemu, self.config, self.timing)

    def _launch(self) -> None:
        self._make_ram()
        with tempfile.TemporaryDirectory() as names:
            self._start(Path(names))

    def _chardev(self, names: Path) -> str:
        """Make the console's lines; return QEMU's description of them."""
        output = self._lines.add_output("console")
        if not self.timing.takes_input:
            # A log is the one output for which QEMU waits where it cannot be written at once.  On
            # any other chardev it tries again later, which a recording does not survive: it aborts
            # in replay_advance_current_icount.
            return f"null,id=console,logfile=/proc/self/fd/{output}"
        # So have room enough to keep QEMU from trying again; a socket takes but some 500 bytes.
        with contextlib.suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        pipes = {"in": self._lines.add_input("typed"), "out": output}
        for direction, descriptor in pipes.items():
            (names / f"console.{direction}").symlink_to(f"/proc/self/fd/{descriptor}")
        return f"pipe,id=console,path={_comma(names / 'console')}"

    def _start(self, names: Path) -> None:
        """Start QEMU; it has opened what is in the folder ``names`` when this returns."""
        words = self.arguments()
        words += [
            "-object",
            f"memory-backend-file,id=ram,size={self.config.memory},share=on,"
            f"mem-path=/proc/self/fd/{self._ram_fd}",
            *("-chardev", f"socket,id=qmp,fd={self._lines.add('qmp')}"),
            *("-mon", "chardev=qmp,mode=control"),
            *("-chardev", self._chardev(names)),
            *("-serial", "chardev:console", "-S"),
            *self._plugin_arguments,
        ]
        if self._want_stub:
            words += ["-chardev", f"socket,id=stub,fd={self._lines.add('stub')}"]
            words += ["-gdb", "chardev:stub"]
        if self._gdb is not None:
            # QEMU unlinks what is there, whatever it is.
            if self._gdb.exists() and not self._gdb.is_socket():
                raise UsageError(f"{self._gdb} is there and no socket; name another --gdb")
            words += ["-chardev", f"socket,id=gdb,path={_comma(self._gdb)},server=on,wait=off"]
            words += ["-gdb", "chardev:gdb"]
        if self._hold:
            words.append("-no-shutdown")
        theirs = [line.fileno() for line in self._lines.theirs.values()]
        try:
            output = self._lines.pipe("console")
            assert output is not None
            self._console = Console(output, self.console_log, self._lines.pipe("typed"))
            log = self.stderr_log.open("wb")
        except OSError as error:
            raise StorageError(f"cannot write logs to {self.folder}: {error.strerror}") from None
        with log:
            try:
                self._process = process.spawn(
                    words,
                    stdout=log,
                    stderr=log,
                    pass_fds=[self._ram_fd, *theirs, *self._pass_fds],
                )
            except OSError as error:
                raise MachineError(f"cannot start {self.qemu}: {error.strerror}") from None
        self._lines.close(self._lines.theirs)
        self._qmp = QEMUMonitorProtocol(self._lines.pair("qmp"))
        self._qmp.settimeout(_QMP_SECONDS)
        try:
            self._qmp.connect()
        except (TimeoutError, ConnectError, QMPError, OSError, EOFError):
            raise self._refused() from None

    def _make_ram(self) -> None:
        size = self.config.memory
        try:
            self._ram_fd = os.memfd_create("guest-ram")
            os.ftruncate(self._ram_fd, size)
            self._ram = mmap.mmap(self._ram_fd, size)
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise MachineError(
                f"cannot have {size >> 20} MiB of guest RAM ({reason}); give less with --memory"
            ) from None

    def _refused(self) -> MachineError:
        """Why QEMU, which has just been started, does not talk to us."""
        assert self._process is not None
        log = str(self.stderr_log)
        if not self.died(1.0):
            return MachineError(f"QEMU does not answer within {_QMP_SECONDS:g} s", log=log)
        status = process.end(self._process)
        if status < 0:
            return MachineError(self.obituary(), log=log)
        lines = [line for line in self.stderr_log.read_text(errors="replace").split("\n") if line]
        prefix = f"{self.qemu.name}: "
        said = next((x for x in lines if "warning" not in x), "it said nothing")
        said = said.removeprefix(prefix).removeprefix(f"{self.qemu}: ")
        return MachineError(f"QEMU refused to start (status {status}): {said}", log=log)

    def close(self) -> None:
        """End QEMU and release everything; idempotent, never raises for a dead QEMU."""
        with interrupts.deferred():
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._ask_to_quit()
            process.end(self._process)
            if self._gdb is not None and self._gdb.is_socket():
                self._gdb.unlink(missing_ok=True)
        if self._qmp is not None:
            self._pull_events(0.001)
            with contextlib.suppress(Exception):
                self._qmp.close()
            self._qmp = None
        # A console ends when no end for writing is left, ours of a QEMU that did not start too.
        self._lines.close(self._lines.theirs)
        if self._console is not None:
            self._console.close()
        self._lines.close(self._lines.ours)
        if self._ram_fd >= 0:
            os.close(self._ram_fd)
            self._ram_fd = -1

    def _ask_to_quit(self) -> None:
        if self.alive() and self._qmp is not None:
            with contextlib.suppress(Exception):
                self._ask("quit", _SHORT_SECONDS)

    def quit(self) -> None:
        """End QEMU in order: it completes its recording only then.

        :raise MachineError: it has died, or does not end within 30 s.
        """
        self._ask_to_quit()
        if not self.died(_QUIT_SECONDS):
            raise MachineError(
                f"QEMU did not end within {_QUIT_SECONDS:g} s of being asked to; run again, with "
                "less going on beside it",
                log=str(self.stderr_log),
            )
        if self.failed():
            raise MachineError(self.obituary(), log=str(self.stderr_log))

    # -- parts --------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def console(self) -> Console:
        """The guest's serial console."""
        assert self._console is not None
        return self._console

    @property
    def stub(self) -> socket.socket:
        """Our end of the line to QEMU's gdb stub."""
        return self._lines.pair("stub")

    @property
    def ram(self) -> mmap.mmap:
        """Guest RAM as bytes, shared with QEMU; stays readable after the machine has ended."""
        assert self._ram is not None
        return self._ram

    def ram_words(self) -> NDArray[np.int64]:
        """Guest RAM as int64 words, shared with QEMU; index 0 is :data:`RAM_BASE`."""
        return np.frombuffer(self.ram, dtype=np.int64)

    def ram_extents(self) -> list[tuple[int, int]]:
        """The parts of guest RAM that hold anything, as (physical address, bytes).

        To read elsewhere would make the host allocate the pages.
        """
        found = []
        at = 0
        while at < self.config.memory:
            try:
                at = os.lseek(self._ram_fd, at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(self._ram_fd, at, os.SEEK_HOLE)
            found.append((RAM_BASE + at, end - at))
            at = end
        return found

    @property
    def ram_path(self) -> Path:
        """A path under which other processes can open guest RAM while the machine lives."""
        return Path(f"/proc/{self.pid}/fd/{self._ram_fd}")

    @property
    def ram_note(self) -> str:
        """For the user of a session that stays: how to walk the guest's tables meanwhile."""
        return f"tables: cosim walk --ram {self.ram_path} --base {RAM_BASE:#x} --satp SATP VA"

    # -- control ------------------------------------------------------------------------------

    def replay_icount(self) -> int | None:
        """Instructions executed since the start of a recording or replay, by QEMU's count; None
        where there is none, or QEMU does not say."""
        with contextlib.suppress(CosimError):
            return int(self.qmp("query-replay")["icount"])
        return None

    def qmp(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer.

        :raise MachineError: when QEMU is gone, silent for 20 s, or refuses the command.
        """
        try:
            return self._ask(command, _QMP_SECONDS, **arguments)
        except TimeoutError:
            raise MachineError(
                f"QEMU does not answer {command!r} within {_QMP_SECONDS:g} s",
                log=str(self.stderr_log),
            ) from None

    def _ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """As :meth:`qmp`; raises TimeoutError when QEMU lives and is silent."""
        assert self._qmp is not None
        try:
            # An interrupt inside the event loop would leave it with a task half done.
            with interrupts.deferred():
                self._qmp.settimeout(timeout)
                return self._qmp.cmd(command, **arguments)
        except (TimeoutError, QMPError, OSError, EOFError) as error:
            if self.died(0.1):
                raise MachineError(self.obituary(), log=str(self.stderr_log)) from None
            if isinstance(error, TimeoutError):
                raise
            raise MachineError(
                f"QEMU does not take {command!r}: {error}", log=str(self.stderr_log)
            ) from None

    def resume(self) -> None:
        """Let the guest run (used where no stub is in charge).

        :raise MachineError: as :meth:`qmp`.
        """
        # While it records or counts instructions, QEMU is deaf until the guest's next timer,
        # which may be far: this answer comes late then, or not where the guest ends before.
        try:
            self._ask("cont", _SHORT_SECONDS)
        except TimeoutError:
            pass
        except MachineError:
            if self.end_reason() is None:
                raise

    def alive(self) -> bool:
        """Whether QEMU still runs."""
        return self._process is not None and self._process.poll() is None

    def died(self, within: float) -> bool:
        """Whether QEMU is gone, or goes within so many seconds."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within)
        return not self.alive()

    def failed(self) -> bool:
        """Whether QEMU, which is gone or just going, was killed or reports an error."""
        return self.died(1.0) and self._process is not None and self._process.returncode != 0

    def ended(self) -> bool:
        """Whether the guest has ended (QEMU may still be there, see ``hold``)."""
        return not self.alive() or self.end_reason() is not None

    def wait(self, timeout: float) -> bool:
        """Wait until the guest has ended by itself, at most ``timeout`` seconds; whether it has."""
        limit = time.monotonic() + timeout
        while not self.ended() or (self.alive() and not self._hold):
            left = limit - time.monotonic()
            if left <= 0:
                return False
            self._pull_events(min(left, 0.1))
        if not self._hold:
            self.console.drained(2)
        return True

    def _pull_events(self, wait: float) -> None:
        """Take in the events that arrive within ``wait`` seconds; return at the first."""
        if self._qmp is None:
            time.sleep(wait)
            return
        try:
            with contextlib.suppress(asyncio.TimeoutError), interrupts.deferred():
                self._events += [dict(event) for event in self._qmp.get_events(wait=wait)]
        except (QMPError, OSError, EOFError):
            # QEMU is going away: all events that came before are taken.
            time.sleep(min(wait, 0.01))

    def end_reason(self) -> str | None:
        """Why the guest ended: ``guest-shutdown``, ``guest-reset``, ``guest-panic`` or None.

        ``-no-reboot`` turns a reset, which is what a panicking Linux asks for, into an end.
        """
        self._pull_events(0.001)
        for event in self._events:
            if event.get("event") == "SHUTDOWN":
                return str(event["data"]["reason"])
        # QEMU 7.2's power-off device ends QEMU at once, without an event.
        if self._process is not None and self._process.poll() == 0:
            return "guest-shutdown"
        return None

    def obituary(self) -> str:
        """One line on how QEMU ended."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None and status < 0:
            return f"QEMU {process.how_it_ended(status)}"
        return f"QEMU ended with status {status} ({self.end_reason() or 'no reason given'})"
