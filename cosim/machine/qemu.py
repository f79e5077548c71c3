"""One QEMU process: launched with the guest stopped, and torn down on every path.

Only its logs have names in the file system.  Guest RAM is an anonymous memory file, and the QMP,
stub and serial lines are socket pairs and pipes that QEMU inherits.  So nothing is left behind,
whatever ends the tool.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cosim.errors import CosimError, GuestError, MachineError, StorageError, UsageError
from cosim.machine import dma, interrupts, overlays, process, snapshot, stub_commands, tools, waits
from cosim.machine.configuration import (
    RAM_BASE,
    MachineConfig,
    Timing,
    arguments,
)
from cosim.machine.console import Console
from cosim.machine.lines import Lines
from cosim.machine.monitor import ANSWER_SECONDS, Monitor, Refused
from cosim.machine.option_text import option_value
from cosim.machine.ram import GuestRam

_PIPE_BYTES = 1 << 20
"""The largest pipe that Linux gives to an ordinary user (fs.pipe-max-size)."""
_SHORT_SECONDS = 2.0
_PRIVATE = 0o177
"""The umask of QEMU: what it makes is for its user alone."""
_QUIT_SECONDS = 30.0
_QUIT_TICK = 0.25
_MIGRATE_SECONDS = 60.0
"""The state of the devices is some hundred KiB."""

_Part = TypeVar("_Part")


class _Loaded(NamedTuple):
    """What QEMU takes of a snapshot, besides RAM."""

    state: BinaryIO
    """The state of its devices."""
    head: snapshot.Head


def _present(part: _Part | None) -> _Part:
    """Return a part of a machine that has been entered."""
    assert part is not None, "the machine was not started"
    return part


def _hint(said: str, config: MachineConfig) -> str:
    """Return what to do about what QEMU said when it refused to start; empty if nobody knows."""
    overlap = "regions overlap" in said
    if overlap and config.bios is None and f"(addresses {RAM_BASE:#018x}" in said:
        return (
            "; the kernel lies where QEMU puts its firmware: give a kernel that starts in M-mode "
            "with --bios none"
        )
    small = ("memory to place DTB", "could not load kernel", "could not load ramdisk")
    if overlap or any(text in said for text in small):
        return (
            f"; {config.memory >> 20} MiB of RAM may be too little for this guest: give it more "
            "with --memory"
        )
    if "Failed to get" in said and "lock" in said:
        return "; another program uses it: end that program, or give this guest a copy"
    if any(said.startswith(word) for word in config.extra if word.startswith("-")):
        return "; QEMU does not take this from --qemu"
    given = {"--board": config.board, "--dtb": config.dtb, "--qemu": config.extra}
    suspects = [name for name, value in given.items() if value]
    return f"; check what you gave with {' and '.join(suspects)}" if suspects else ""


class Machine:
    """One QEMU process and everything that belongs to it.

    A context manager.  Entering launches QEMU with the guest stopped; leaving ends QEMU, whatever
    happened in between.  The lines to it are ``console`` (the UART), QMP, and ``stub`` (the remote
    protocol, for one client) if ``stub`` is true.

    :param qemu: the program.
    :param config: the guest and the board.
    :param folder: where the logs go; it exists.
    :param timing: how time runs.
    :param stub: give the machine a gdb stub on a socket pair.
    :param hold: keep QEMU, with the guest stopped for inspection, when the guest ends.
    :param plugin_arguments: the arguments that load a TCG plugin.
    :param pass_fds: further descriptors that QEMU inherits.
    :param gdb: a Unix socket to make, where QEMU's stub waits for the user's own gdb.
    :param watch_dma: take note of where devices write to RAM, if QEMU can tell (:attr:`dma`).
    :param name: the first word of the log files' names.
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
        watch_dma: bool = False,
        name: str = "guest",
    ) -> None:
        self.qemu = Path(qemu)
        self.config = config
        self.timing = timing or Timing()
        self.folder = folder
        self.name = name
        # With a stub for the user's gdb there is no other.
        self._splits = self.timing.repeats and gdb is None and self.timing.split != frozenset()
        self._want_stub = stub or self._splits or config.snapshot is not None
        self._hold = hold
        self._plugin_arguments = plugin_arguments
        self._pass_fds = pass_fds
        self._gdb = gdb
        self._watch_dma = watch_dma and config.has_dma and tools.qemu_traces(self.qemu, dma.EVENT)
        self.dma: dma.DmaWrites | None = None
        """Where devices have written to RAM; None if that is not known, or there are none."""
        self._lines = Lines()
        self._process: subprocess.Popen[bytes] | None = None
        self._ram: GuestRam | None = None
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self.stderr_log = folder / f"{name}.qemu.log"
        self.console_log = folder / f"{name}.console.log"

    # -- life ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            # An interruption that was held back is raised here, where close() still runs.
            with interrupts.deferred():
                self._launch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _launch(self) -> None:
        self._ram = GuestRam(self.config.memory)
        with tempfile.TemporaryDirectory() as names, self._unpacked() as state:
            self._start(Path(names), state)

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[_Loaded | None]:
        """Yield what QEMU takes of the snapshot, whose RAM is in place then; None without one.

        :raises CosimError: when the snapshot cannot be unpacked.
        """
        if self.config.snapshot is None:
            yield None
            return
        try:
            state = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115
        except OSError as error:
            raise StorageError(f"cannot write {self.folder}: {error.strerror}") from None
        with state:
            ram = _present(self._ram)
            head = snapshot.restore(self.config.snapshot, state, ram.bytes, ram.size)
            state.flush()
            yield _Loaded(state, head)

    def _chardev(self, names: Path) -> str:
        """Make the console's lines; return the value of -chardev for them."""
        output = self._lines.add_output("console")
        if not self.timing.takes_input:
            # QEMU waits until it can write to a log.  On every other chardev it tries again later,
            # and that aborts a recording in replay_advance_current_icount.
            return f"null,id=console,logfile=/proc/self/fd/{output}"
        # A large pipe keeps QEMU from having to try again; a socket holds only some 500 bytes.
        with contextlib.suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        pipes = {"in": self._lines.add_input("typed"), "out": output}
        for direction, descriptor in pipes.items():
            (names / f"console.{direction}").symlink_to(f"/proc/self/fd/{descriptor}")
        return f"pipe,id=console,path={option_value(names / 'console')}"

    def _start(self, names: Path, loaded: _Loaded | None) -> None:
        """Start QEMU; when this returns, it has opened the files in the folder ``names``.

        :param loaded: where its guest starts from.
        """
        ram = _present(self._ram).descriptor
        words = arguments(self.qemu, self.config, self.timing)
        words += [
            "-object",
            f"memory-backend-file,id=ram,size={self.config.memory},share=on,"
            f"mem-path=/proc/self/fd/{ram}",
            *("-chardev", f"socket,id=qmp,fd={self._lines.add_pair('qmp')}"),
            *("-mon", "chardev=qmp,mode=control"),
            *("-chardev", self._chardev(names)),
            *("-serial", "chardev:console", "-S"),
            *self._plugin_arguments,
        ]
        if self._want_stub:
            words += ["-chardev", f"socket,id=stub,fd={self._lines.add_pair('stub')}"]
            words += ["-gdb", "chardev:stub"]
        if self._gdb is not None:
            # QEMU deletes whatever is there.
            if self._gdb.exists() and not self._gdb.is_socket():
                raise UsageError(
                    f"--gdb: {self._gdb} exists and is not a socket; choose another path"
                )
            words += [
                "-chardev",
                f"socket,id=gdb,path={option_value(self._gdb)},server=on,wait=off",
            ]
            words += ["-gdb", "chardev:gdb"]
        if self._hold:
            words.append("-no-shutdown")
        if self._watch_dma:
            words += dma.arguments(self._lines.add_output("log"))
        try:
            output = _present(self._lines.pipe("console"))
            said = "" if loaded is None else loaded.head.said
            self._console = Console(output, self.console_log, self._lines.pipe("typed"), said)
            log = self.stderr_log.open("wb")
        except OSError as error:
            raise StorageError(f"cannot write logs to {self.folder}: {error.strerror}") from None
        written = self._lines.pipe("log")
        if written is not None:
            self.dma = dma.DmaWrites(written, self.stderr_log)
        state = [] if loaded is None else [loaded.state.fileno()]
        with log:
            try:
                self._process = process.spawn(
                    words,
                    stdout=log,
                    stderr=log,
                    pass_fds=[ram, *self._lines.inherited, *state, *self._pass_fds],
                    # Whoever can write to the stub's socket can do anything to the guest.
                    umask=_PRIVATE,
                )
            except OSError as error:
                short = error.errno == errno.ENOMEM
                hint = "; use a smaller --memory or fewer models" if short else ""
                raise MachineError(f"cannot start {self.qemu}: {error.strerror}{hint}") from None
        self._lines.close_theirs()
        self._monitor = Monitor(self._lines.pair("qmp"))
        if not self._monitor.connect():
            raise self._refused()
        if loaded is not None:
            self._migrate("migrate-incoming", loaded.state)
            self._command(map(str.encode, loaded.head.timers))
        if self._splits:
            self._split_waits()

    def save(self, state: BinaryIO) -> None:
        """Write the state of the devices of the machine, whose guest is stopped.

        The guest cannot go on then.

        :param state: a file that QEMU has inherited.
        :raises MachineError: when QEMU cannot do it.
        """
        self._migrate("migrate", state)

    def _migrate(self, command: str, state: BinaryIO) -> None:
        """Write or read the state of everything but guest RAM, which we share with QEMU."""
        shared = {"capability": "x-ignore-shared", "state": True}
        self.qmp("migrate-set-capabilities", capabilities=[shared])
        self.qmp(command, uri=f"file:/proc/self/fd/{state.fileno()}")
        limit = time.monotonic() + _MIGRATE_SECONDS
        while True:
            found = self.qmp("query-migrate")
            if found.get("status") == "completed":
                return
            if found.get("status") == "failed" or time.monotonic() > limit:
                said = found.get("error-desc", f"it is not done within {_MIGRATE_SECONDS:g} s")
                raise MachineError(
                    f"QEMU cannot {'load' if 'incoming' in command else 'save'} its devices' "
                    f"state: {said}",
                    log=str(self.stderr_log),
                )
            time.sleep(0.01)

    def _split_waits(self) -> None:
        """Make a recording and its re-executions count alike around each ``wfi``."""
        split = self.timing.split
        if split is None:
            waiting = waits.pages(self.ram_words(), RAM_BASE, self.ram_extents())
            split = frozenset(waits.points(waiting, self.config.linked))
        self.split(split)

    def split(self, points: Iterable[int]) -> None:
        """Run the pages of ``points`` instruction by instruction (:mod:`cosim.machine.waits`).

        For a machine with a stub that nobody has talked to, before its guest starts.

        :raises MachineError: when the stub refuses.
        """
        self._command(waits.breakpoints(sorted(points)))

    def _command(self, commands: Iterable[bytes]) -> None:
        """Give QEMU's stub ``commands`` before the guest starts.

        :raises MachineError: when the stub refuses.
        """
        if not stub_commands.send(self.stub, commands):
            refused = "QEMU's gdb stub did not do what it was told before the guest started"
            raise self.cause(MachineError(refused, log=str(self.stderr_log)))

    def _refused(self) -> MachineError:
        """Return the error that says why QEMU, which was just started, does not answer."""
        log = str(self.stderr_log)
        if not self.died(1.0):
            return MachineError(f"QEMU does not answer within {ANSWER_SECONDS:g} s", log=log)
        status = process.end(_present(self._process))
        if status < 0:
            return MachineError(self.obituary(), log=log)
        lines = [line for line in self.stderr_log.read_text(errors="replace").split("\n") if line]
        prefix = f"{self.qemu.name}: "
        said = next((x for x in lines if "warning" not in x), "it said nothing")
        said = said.removeprefix(prefix).removeprefix(f"{self.qemu}: ")
        hint = _hint("\n".join([said, *lines]), self.config)
        return MachineError(f"QEMU refused to start (status {status}): {said}{hint}", log=log)

    def close(self) -> None:
        """End QEMU and release everything; idempotent, and fine if QEMU is gone already."""
        with interrupts.deferred():
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._ask_to_quit()
            process.end(self._process)
            if self._gdb is not None and self._gdb.is_socket():
                self._gdb.unlink(missing_ok=True)
        if self._monitor is not None:
            self._monitor.close()
        # The console ends when no writing end is left.  If QEMU did not start, we still hold one.
        self._lines.close_theirs()
        if self._console is not None:
            self._console.close()
        if self.dma is not None:
            self.dma.finish()
        self._lines.close_ours()
        if self._ram is not None:
            self._ram.close()

    def _ask_to_quit(self) -> None:
        if self.alive() and self._monitor is not None:
            with contextlib.suppress(Exception):
                self._ask("quit", _SHORT_SECONDS)

    def kill(self) -> None:
        """End QEMU at once, because it answers nobody.  A recording is not completed."""
        _present(self._process).kill()
        _present(self._process).wait()

    def quit(self, hopeless: Callable[[], bool] = lambda: False) -> bool:
        """End QEMU in order; only then does it complete a recording.

        :param hopeless: is asked a few times a second if waiting is in vain.
        :return: False if it is; QEMU is still there then.
        :raises MachineError: when QEMU died, or does not end within 30 s.
        """
        self._ask_to_quit()
        limit = time.monotonic() + _QUIT_SECONDS
        while not self.died(_QUIT_TICK):
            if hopeless():
                return False
            if time.monotonic() > limit:
                raise MachineError(
                    f"QEMU did not end within {_QUIT_SECONDS:g} s after it was asked to; run again "
                    "while the machine is less busy",
                    log=str(self.stderr_log),
                )
        if self.failed():
            raise MachineError(self.obituary(), log=str(self.stderr_log))
        return True

    # -- parts --------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return _present(self._process).pid

    @property
    def console(self) -> Console:
        """The guest's serial console."""
        return _present(self._console)

    @property
    def stub(self) -> socket.socket:
        """Our end of the line to QEMU's gdb stub."""
        return self._lines.pair("stub")

    @property
    def ram(self) -> mmap.mmap:
        """Guest RAM as bytes, shared with QEMU; stays readable after the machine has ended."""
        return _present(self._ram).bytes

    def ram_words(self) -> NDArray[np.int64]:
        """Return guest RAM as int64 words, shared with QEMU; index 0 is physical address
        :data:`~cosim.machine.configuration.RAM_BASE`."""
        return _present(self._ram).words()

    def ram_extents(self) -> list[tuple[int, int]]:
        """Return the parts of guest RAM that hold data, as (physical address, bytes)."""
        return _present(self._ram).extents()

    @property
    def ram_path(self) -> Path:
        """A path under which other processes can open guest RAM while the machine lives."""
        return _present(self._ram).path(self.pid)

    @property
    def ram_note(self) -> str:
        """One line for the user: how to walk the guest's tables while the session stays."""
        return f"tables: cosim walk --ram {self.ram_path} --base {RAM_BASE:#x} --satp SATP VA"

    # -- control ------------------------------------------------------------------------------

    def replay_icount(self) -> int | None:
        """Return the instructions executed since the recording or its re-execution began.

        QEMU counts them (``query-replay``).  None without a recording, or if QEMU does not answer.
        """
        with contextlib.suppress(CosimError):
            return int(self.qmp("query-replay")["icount"])
        return None

    def check_disks(self) -> None:
        """Check that the guest has not written more to its disks than it may.

        :raises GuestError: when it has.
        """
        limit = self.config.devices.limit
        if limit is not None and self.alive() and overlays.written(self.pid) > limit:
            raise GuestError(
                f"the guest has written more than {limit >> 10:,} KiB to its disks; allow more "
                "with --disk-limit",
                log=str(self.console_log),
            )

    def running(self) -> bool:
        """Return True if QEMU says that the guest is not stopped."""
        with contextlib.suppress(CosimError):
            return bool(self.qmp("query-status")["running"])
        return False

    def qmp(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer.

        :raises MachineError: when QEMU is gone, silent for 20 s, or refuses the command.
        """
        try:
            return self._ask(command, ANSWER_SECONDS, **arguments)
        except TimeoutError:
            raise MachineError(
                f"QEMU does not answer {command!r} within {ANSWER_SECONDS:g} s",
                log=str(self.stderr_log),
            ) from None

    def _ask(self, command: str, timeout: float, **arguments: object) -> Any:
        """As :meth:`qmp`, but raise TimeoutError if QEMU lives and is silent."""
        try:
            return _present(self._monitor).ask(command, timeout, **arguments)
        except (TimeoutError, Refused) as error:
            if self.died(0.1):
                raise MachineError(self.obituary(), log=str(self.stderr_log)) from None
            if isinstance(error, TimeoutError):
                raise
            raise MachineError(
                f"QEMU refuses {command!r}: {error}", log=str(self.stderr_log)
            ) from None

    def resume(self) -> None:
        """Let the guest run; for a machine without a stub in charge.

        :raises MachineError: when QEMU is gone or refuses.
        """
        # While QEMU records or counts instructions, it answers only at the guest's next timer.
        # That may be far away, and if the guest ends first there is no answer.
        try:
            self._ask("cont", _SHORT_SECONDS)
        except TimeoutError:
            pass
        except MachineError:
            if self.end_reason() is None:
                raise

    def alive(self) -> bool:
        """Return True if QEMU still runs."""
        return self._process is not None and self._process.poll() is None

    def died(self, within: float) -> bool:
        """Return True if QEMU is gone, or goes within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            _present(self._process).wait(within)
        return not self.alive()

    def failed(self) -> bool:
        """Return True if QEMU, which is gone or just going, was killed or reports an error."""
        return self.died(1.0) and self._process is not None and self._process.returncode != 0

    def ended(self) -> bool:
        """Return True if the guest has ended (QEMU may still be there, see ``hold``)."""
        return not self.alive() or self.end_reason() is not None

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the guest to end; return True if it has ended."""
        limit = time.monotonic() + timeout
        while not self.ended() or (self.alive() and not self._hold):
            left = limit - time.monotonic()
            if left <= 0:
                return False
            self._wait_event(min(left, 0.1))
        if not self._hold:
            self.console.drained(2)
        return True

    def _wait_event(self, seconds: float) -> None:
        if self._monitor is not None:
            self._monitor.wait_event(seconds)
        else:
            time.sleep(seconds)

    def end_reason(self) -> str | None:
        """Return why the guest ended, ``guest-shutdown``, ``guest-reset`` or ``guest-panic``;
        None if it has not ended.

        ``-no-reboot`` turns a reset into an end.  A Linux that panics asks for a reset.
        """
        gone = not self.alive()
        reason = None if self._monitor is None else self._monitor.shutdown_reason(gone=gone)
        # QEMU 7.2's power-off device ends QEMU at once, without an event.
        if reason is None and self._process is not None and self._process.poll() == 0:
            return "guest-shutdown"
        return reason

    def cause(self, error: CosimError) -> CosimError:
        """Return the cause of ``error``, which may only show that QEMU is gone."""
        if self.died(1.0):
            return MachineError(self.obituary(), log=str(self.stderr_log))
        return error

    def obituary(self) -> str:
        """Return one line on how QEMU ended."""
        status = _present(self._process).poll()
        if status is not None and status < 0:
            return f"QEMU {process.how_it_ended(status)}"
        return f"QEMU ended with status {status} ({self.end_reason() or 'no reason given'})"
