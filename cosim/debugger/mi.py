"""gdb over its machine interface: commands matched to answers by token, stops as events.

A thread reads what gdb prints, and :mod:`cosim.debugger.mi_records` parses it.  Each wait has a
deadline, and ends at once when gdb dies or loses its target.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, Self, TypeVar

from cosim.debugger.mi_records import GdbStop, parse, quote, stop_of
from cosim.errors import GdbError, MissingTool, StorageError, UsageError
from cosim.machine import process

_ANSWER_SECONDS = 20.0
_REMOTE_SECONDS = 10
_LOG_LIMIT = 64 << 20
_CONSOLE_LIMIT = 1 << 20
_SETTINGS = (
    "mi-async on",
    "pagination off",
    "confirm off",
    "width 0",
    "height 0",
    # Otherwise every stop takes all breakpoints out and every resume puts them in again.
    "breakpoint always-inserted on",
    f"remotetimeout {_REMOTE_SECONDS}",
    "tcp auto-retry off",
)
_CONNECTION_LOST = ("Remote connection closed", "Remote communication error")

P = ParamSpec("P")
R = TypeVar("R")
G = TypeVar("G", bound="GdbMi")


def guest_stopped(
    method: Callable[Concatenate[G, P], R],
) -> Callable[Concatenate[G, P], R]:
    """Let ``method`` raise GdbError unless gdb has a guest and the guest is stopped."""

    @functools.wraps(method)
    def checked(self: G, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.check_alive()
        if not self.connected:
            raise GdbError(f"{method.__name__}: gdb has no guest; connect first")
        if self.running:
            raise GdbError(f"{method.__name__}: the guest runs; interrupt it or wait for a stop")
        return method(self, *args, **kwargs)

    return checked


class GdbMi:
    """One gdb process, driven over MI.

    It is a context manager.  gdb dies with the thread that started it, so start it from the main
    thread.  Methods may be called from several threads.

    :param gdb: the program, which must know RISC-V.
    :param transcript: a file for all that is said in both directions, with seconds since the start.
    :raises MissingTool: when gdb cannot be started or does not know RISC-V.
    :raises GdbError: when it dies or stays silent.
    """

    def __init__(self, gdb: Path | str, *, transcript: Path | None = None) -> None:
        self.gdb = Path(gdb)
        self.connected = False
        """True if gdb has a guest."""
        self.running = False
        """True if the guest runs, as far as gdb has said."""
        self.log_error: str | None = None
        self._changed = threading.Condition()
        self._send_lock = threading.Lock()
        self._tokens = itertools.count(1)
        self._pending: dict[int, tuple[str, Future[dict[str, Any]]]] = {}
        self._stops: deque[GdbStop] = deque()
        self._console: deque[str] = deque()
        self._console_size = 0
        self._last_message = ""
        self._death: str | None = None
        self._lost = False
        self._closing = False
        self._register_numbers: dict[str, int] | None = None
        self._started = time.monotonic()
        self._log_size = 0
        self._log_path = transcript
        self._log: IO[bytes] | None = None
        try:
            self._log = transcript.open("wb", buffering=0) if transcript else None
        except OSError as error:
            raise StorageError(f"cannot write {transcript}: {error.strerror}") from None
        try:
            self._process = process.spawn(
                [self.gdb, "--quiet", "--nx", "--interpreter=mi3"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise MissingTool(
                f"cannot start {self.gdb}: {error.strerror}; install gdb-multiarch"
            ) from None
        self._input, self._output = _pipes(self._process)
        self._symbols = contextlib.ExitStack()
        self._reader = threading.Thread(target=self._read, name="gdb-mi", daemon=True)
        self._reader.start()
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        try:
            self.command("-gdb-set architecture riscv:rv64")
        except GdbError:
            self.check_alive()
            raise MissingTool(
                f"{self.gdb} does not know RISC-V; install gdb-multiarch (scripts/setup does)"
            ) from None
        for setting in _SETTINGS:
            self.command(f"-gdb-set {setting}")
        # Otherwise gdb asks servers for sources.  An old gdb does not know the setting.
        with contextlib.suppress(GdbError):
            self.command("-gdb-set debuginfod enabled off")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End gdb, politely if it listens.  May be called twice; never raises.

        gdb lets go of its guest, which resumes unless an interposer is in between.
        """
        self._closing = True
        with contextlib.suppress(OSError, ValueError):
            if self.running:
                # While its guest runs, gdb would wait for a stop before it ends.
                self._process.terminate()
            else:
                self._write("-gdb-exit")
        with contextlib.suppress(OSError, ValueError):
            self._input.close()
        process.end(self._process)
        self._symbols.close()
        self._reader.join(5)
        with contextlib.suppress(OSError):
            if not self._reader.is_alive():
                self._output.close()

    @property
    def pid(self) -> int:
        """gdb's process id."""
        return self._process.pid

    # -- gdb's side -----------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            for raw in self._output:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                self._note("<", line)
                if line.strip() != "(gdb)":
                    self._take(line)
        finally:
            self._die()
            if self._log:
                self._log.close()

    def _take(self, line: str) -> None:
        record = parse(line)
        payload = record.get("payload")
        match record["type"]:
            case "result":
                self._take_result(record)
            case "notify":
                self._take_notice(str(record["message"]), payload or {})
            case _ if isinstance(payload, str):
                self._take_text(str(record["type"]), payload)

    def _take_result(self, record: dict[str, Any]) -> None:
        with self._changed:
            _, answer = self._pending.pop(record.get("token") or 0, ("", None))
            match record["message"]:
                case "running":
                    self.running = True
                case "connected":
                    self.connected, self._lost = True, False
                case "error":
                    # A guest lost while it runs makes the resume fail, answered though it is.
                    self._check_lost(str((record.get("payload") or {}).get("msg", "")))
        if answer is not None and not answer.done():
            answer.set_result(record)

    def _check_lost(self, message: str) -> None:
        if message.startswith(_CONNECTION_LOST):
            self._last_message = message.strip()
            self.connected, self.running, self._lost = False, False, True
            self._changed.notify_all()

    def _take_notice(self, message: str, payload: dict[str, Any]) -> None:
        with self._changed:
            if message == "running":
                self.running = True
            elif message == "stopped":
                self.running = False
                stop = stop_of(payload)
                if stop.ended:
                    self.connected = False
                self._stops.append(stop)
            elif message == "thread-group-exited":
                # The stop that says how follows, or the loss of the connection.
                self.connected = False
            self._changed.notify_all()

    def _take_text(self, kind: str, text: str) -> None:
        with self._changed:
            if kind in ("log", "output") and text.strip():
                self._last_message = " ".join(text.split())
            self._console.append(text)
            self._console_size += len(text)
            while self._console_size > _CONSOLE_LIMIT:
                self._console_size -= len(self._console.popleft())
            if kind == "log":
                self._check_lost(text)

    def _die(self) -> None:
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(2)
        how = "closed its output" if status is None else process.how_it_ended(status)
        with self._changed:
            # What gdb said last is a reason only if gdb ended by itself.
            killed = status == -signal.SIGKILL
            said = "" if killed or not self._last_message else f": {self._last_message}"
            self._death = f"gdb {how}{said}"
            self.connected = self.running = False
            waiting, self._pending = list(self._pending.values()), {}
            self._changed.notify_all()
        for text, answer in waiting:
            if not answer.done():
                answer.set_exception(self._error(f"{self._death} (during {text})"))

    def _error(self, message: str) -> GdbError:
        return GdbError(message, log=str(self._log_path) if self._log_path else None)

    def _note(self, direction: str, line: str) -> None:
        if self._log is None or self.log_error:
            return
        text = f"{time.monotonic() - self._started:10.4f} {direction} {line}\n".encode()
        self._log_size += len(text)
        try:
            if self._log_size > _LOG_LIMIT:
                self.log_error = "cut at 64 MiB"
                text = b"[log cut here: more than 64 MiB]\n"
            self._log.write(text)
        except (OSError, ValueError) as error:
            # gdb goes on.  The session reports this at its end.
            self.log_error = f"{self._log_path}: {getattr(error, 'strerror', error)}"

    def check_log(self) -> None:
        """Check that the whole transcript was written.

        :raises StorageError: when the disk was full or the file was not writable.
        """
        if self.log_error and self.log_error != "cut at 64 MiB":
            raise StorageError(
                f"the MI transcript is incomplete ({self.log_error}); free space and run again"
            )

    # -- our side -------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Check that gdb is there.

        :raises GdbError: when gdb has died or was closed; the message says how.
        """
        if self._death is not None or self._closing:
            raise self._error(self._death or "gdb is closed")

    def _write(self, line: str) -> None:
        self._note(">", line)
        self._input.write(line.encode() + b"\n")
        self._input.flush()

    def command(self, text: str, timeout: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Send one MI command (such as ``-gdb-version``) and return the fields of its answer.

        :raises GdbError: when gdb refuses it, dies, or does not answer within ``timeout`` seconds.
        :raises UsageError: when ``text`` is not an MI command.
        """
        if "\n" in text or not text.startswith("-"):
            raise UsageError(f"{text!r} is not an MI command: one line that starts with '-'")
        answer: Future[dict[str, Any]] = Future()
        token = next(self._tokens)
        self.check_alive()
        with self._changed:
            self._pending[token] = (text, answer)
        try:
            with self._send_lock:
                self._write(f"{token}{text}")
            # If gdb has died since the check, nobody will answer.
            if self._death is not None and not answer.done():
                raise self._error(f"{self._death} (during {text})")
            record = answer.result(timeout)
        except TimeoutError:
            raise self._error(f"gdb did not answer {text} within {timeout:g} s") from None
        except (BrokenPipeError, ValueError):
            self._reader.join(2)
            raise self._error(f"{self._death or 'gdb is gone'} (during {text})") from None
        finally:
            with self._changed:
                self._pending.pop(token, None)
        fields: dict[str, Any] = record.get("payload") or {}
        if record["message"] == "error":
            raise self._error(f"gdb refuses {text}: {fields.get('msg', 'no reason given')}")
        return fields

    def execute(self, line: str, timeout: float = _ANSWER_SECONDS) -> str:
        """Run one command of gdb's command line and return what it printed.

        :raises GdbError: when :meth:`command` does.
        """
        with self._changed:
            self._console.clear()
            self._console_size = 0
        self.command(f"-interpreter-exec console {quote(line)}", timeout)
        with self._changed:
            return "".join(self._console)

    def connect(self, path: Path | str, timeout: float = _ANSWER_SECONDS) -> GdbStop:
        """Connect to the stopped guest behind the Unix socket ``path``; return where it stands.

        :raises GdbError: when gdb has a guest already, or no RISC-V stub serves the socket.
        """
        if self.connected:
            raise GdbError("connect: gdb has a guest already")
        self._stops.clear()
        # gdb takes the rest of the line as the name: no quotes.
        self.command(f"-target-select remote {os.fspath(path)}", timeout)
        self.connected = True
        self._register_numbers = None
        return self._stop_of("-target-select", timeout)

    def load_symbols(self, elf: Path | str) -> None:
        """Give gdb the symbols of ``elf``, whatever its name is.

        :raises GdbError: when it is no ELF file, or cannot be read.
        """
        # gdb splits this name at spaces and takes only UTF-8, so it gets the file by its number.
        try:
            file = Path(elf).open("rb")  # noqa: SIM115
        except OSError as error:
            raise GdbError(f"cannot read {elf}: {error.strerror}") from None
        self._symbols.push(file)
        name = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        self.command(f"-file-symbol-file {quote(name)}", 3 * _ANSWER_SECONDS)

    @guest_stopped
    def break_insert(self, address: int, *, hardware: bool = True) -> int:
        """Put a breakpoint at ``address`` and return its number.

        :param hardware: if False, gdb writes a trap instruction into guest memory.
        :raises GdbError: when gdb or the stub refuses it.
        """
        kind = "-h " if hardware else ""
        fields = self.command(f"-break-insert {kind}*0x{address:x}")
        return int(fields["bkpt"]["number"])

    @guest_stopped
    def break_delete(self, number: int) -> None:
        """Take breakpoint ``number`` away, if it is there."""
        self.command(f"-break-delete {number:d}")

    @guest_stopped
    def resume(self) -> None:
        """Let the guest run; :meth:`wait_stop` returns its next stop."""
        self._start("-exec-continue")

    def _start(self, text: str) -> None:
        # Nobody waited for the stops before this.
        self._stops.clear()
        self.command(text)

    def interrupt(self) -> None:
        """Ask the running guest to stop; :meth:`wait_stop` returns the stop.

        :raises GdbError: when there is no guest, or it does not run.
        """
        self.check_alive()
        if not self.running:
            raise GdbError("interrupt: the guest does not run")
        self.command("-exec-interrupt")

    def wait_stop(self, timeout: float) -> GdbStop | None:
        """Return the next stop, or None if the guest still runs after ``timeout`` seconds.

        :raises GdbError: when gdb dies, loses the guest without a stop, or has none.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stops or self._death is not None or self._lost, timeout
            )
            if self._stops:
                return self._stops.popleft()
            if self._death is not None:
                raise self._error(f"{self._death} (waiting for the guest to stop)")
            if not self.connected:
                raise self._error(f"gdb has lost its guest: {self._last_message}")
            return None

    def _stop_of(self, text: str, timeout: float) -> GdbStop:
        """Return the stop that the command ``text`` leads to."""
        stop = self.wait_stop(timeout)
        if stop is None:
            raise self._error(f"the guest did not stop within {timeout:g} s of {text}")
        return stop

    @guest_stopped
    def registers(self, names: Sequence[str]) -> dict[str, int]:
        """Return the unsigned values of registers, such as ``pc``, ``a0``, ``satp``, ``priv``.

        :raises GdbError: when gdb does not know a name.
        """
        if self._register_numbers is None:
            known = self.command("-data-list-register-names")["register-names"]
            self._register_numbers = {name: i for i, name in enumerate(known) if name}
            if "fp" in self._register_numbers:
                self._register_numbers.setdefault("s0", self._register_numbers["fp"])
        numbers: dict[int, str] = {}
        for name in names:
            if name not in self._register_numbers:
                raise self._error(f"the guest's target description has no register {name}")
            numbers[self._register_numbers[name]] = name
        if not numbers:
            return {}
        fields = self.command(
            "-data-list-register-values x " + " ".join(str(number) for number in numbers)
        )
        values = {}
        for entry in fields["register-values"]:
            name = numbers[int(entry["number"])]
            try:
                values[name] = int(entry["value"], 16)
            except ValueError:
                raise self._error(f"register {name} reads as {entry['value']}") from None
        return values


def _pipes(gdb: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if gdb.stdin is None or gdb.stdout is None:
        raise GdbError("gdb was started without pipes")
    return gdb.stdin, gdb.stdout
