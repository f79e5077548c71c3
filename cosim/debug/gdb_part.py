"""The part of ``cosim debug`` that runs inside gdb.

gdb embeds the system's Python, which lacks cosim's packages.  So this file uses only the standard
library (Python 3.9 or newer) and asks a cosim process for every answer.  ``cosim debug`` sources
it.  In a gdb of your own, source what ``cosim debug --print-gdbinit`` prints.

Every command is also a Python function: ``paging("walk", "0x1000")`` returns the answer as data.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any, BinaryIO

import gdb

_SERVER: list[str] | None = None
"""The command that starts the process which answers; None if ``COSIM_GDB_LINK`` names its line."""


class _Link:
    """The line to the process that answers."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None
        self._file: BinaryIO | None = None

    def _open(self) -> tuple[socket.socket, BinaryIO]:
        if self._line is not None and self._file is not None:
            return self._line, self._file
        number = os.environ.get("COSIM_GDB_LINK")
        if number is not None:
            self._line = socket.socket(fileno=int(number))
        elif _SERVER is not None:
            self._line, theirs = socket.socketpair()
            words = [*_SERVER, str(theirs.fileno())]
            # Ctrl-C is for gdb.  The process ends when gdb does, because its line ends.
            subprocess.Popen(
                words, pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL
            )
            theirs.close()
        else:
            raise gdb.GdbError("start gdb with `cosim debug`, or source its --print-gdbinit")
        self._file = self._line.makefile("rb")
        return self._line, self._file

    def ask(self, words: list[str]) -> dict[str, Any]:
        """Return the last message; print, and read for the other side, until it comes."""
        try:
            line, file = self._open()
            _send(line, {"ask": words})
            while True:
                received = file.readline()
                if not received:
                    raise OSError("it has ended")
                message: dict[str, Any] = json.loads(received)
                if "say" in message:
                    gdb.write(message["say"] + "\n")
                    gdb.flush()
                elif "registers" in message:
                    _send(line, {"values": {n: _register(n) for n in message["registers"]}})
                elif "memory" in message:
                    _send(line, {"data": _memory(*message["memory"])})
                else:
                    return message
        except (OSError, ValueError) as error:
            self._line = None
            raise gdb.GdbError(f"cosim does not answer: {error}") from None


def _send(line: socket.socket, document: dict[str, Any]) -> None:
    line.sendall(json.dumps(document).encode() + b"\n")


def _register(name: str) -> int | None:
    """Return the unsigned value of a register; None if it cannot be read."""
    try:
        value = gdb.newest_frame().read_register(name)
        return int(value.cast(gdb.lookup_type("unsigned long long")))
    except (gdb.error, ValueError, RuntimeError):
        return None


def _memory(address: int, length: int) -> str | None:
    """Return physical memory in hexadecimal; None if it cannot be read."""
    gdb.execute("maintenance packet Qqemu.PhyMemMode:1", to_string=True)
    try:
        return bytes(gdb.selected_inferior().read_memory(address, length)).hex()
    except gdb.error:
        return None
    finally:
        gdb.execute("maintenance packet Qqemu.PhyMemMode:0", to_string=True)


_LINK = _Link()


def paging(*words: object) -> Any:
    """Run a ``paging`` command and return its answer as data.

    ``paging("walk", "0x80200000")`` is the command ``paging walk 0x80200000``.
    """
    message = _LINK.ask([_word(word) for word in words])
    if "error" in message:
        raise gdb.GdbError(message["error"])
    for command in message["run"]:
        gdb.execute(command)
    return message["value"]


def _word(word: object) -> str:
    """Return an argument of a Python function as cosim reads it."""
    if isinstance(word, gdb.Value):
        value: Any = word
        return hex(int(value.cast(gdb.lookup_type("unsigned long long"))))
    return str(word)


def _number(word: str) -> str:
    """Return ``word`` as cosim reads it: an expression of gdb's becomes a number."""
    if word.startswith("-") or word[:1].isdigit():
        return word
    try:
        value: Any = gdb.parse_and_eval(word)
        if value.type.strip_typedefs().code in (gdb.TYPE_CODE_FUNC, gdb.TYPE_CODE_ARRAY):
            value = value.address
        return _word(value)
    except (gdb.error, ValueError):
        return word


class _Command(gdb.Command):
    """One ``paging`` command."""

    def __init__(self, name: str, text: str, words: list[str], literal: list[str]) -> None:
        self.__doc__ = text
        self._name = name
        self._words = words
        self._literal = literal
        super().__init__("paging " + name, gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Ask, and show the answer."""
        words = gdb.string_to_argv(argument)
        message = _LINK.ask([self._name, *self._numbers(words)])
        if "error" in message:
            raise gdb.GdbError(message["error"])
        if message["answer"]:
            gdb.write(message["answer"].rstrip("\n") + "\n")
        for command in message["run"]:
            gdb.execute(command, from_tty)

    def _numbers(self, words: list[str]) -> list[str]:
        """Return the words with numbers in place of expressions, where an address is expected."""
        found = []
        before = ""
        for word in words:
            # The value of an option, or an argument of the command.
            name = before if before in self._words and before.startswith("-") else ""
            literal = word in self._words or name in self._literal
            found.append(word if literal else _number(word))
            before = word
        return found

    def complete(self, text: str, word: str | None) -> Any:
        """Complete options and fixed words, then symbols.

        gdb asks without a word first, to learn where words end.
        """
        if word is None:
            return None
        found = [one for one in self._words if one.startswith(word)]
        return found or gdb.COMPLETE_SYMBOL


class _Prefix(gdb.Command):
    """Questions about the guest's page tables.  Type `help paging` for the list.

    The commands are answered by cosim.  An ADDRESS is any expression of gdb's.
    """

    def __init__(self) -> None:
        super().__init__("paging", gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Say nothing of an interruption that ends gdb: since Python 3.13 its shutdown reports one."""
    if not issubclass(what.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(what)


def _stopped(event: object) -> None:
    """Say why the guest stopped, if a `paging` command asked for it."""
    try:
        message = _LINK.ask(["stopped"])
    except gdb.GdbError:
        return
    if message.get("answer"):
        gdb.write(message["answer"] + "\n")


_Prefix()
for _one in paging("commands"):
    _Command(_one["name"], _one["help"], _one["words"], _one["literal"])
gdb.events.stop.connect(_stopped)
sys.unraisablehook = _unraisable
