"""The line between us and the part inside gdb: one JSON document in each line.

gdb asks: ``{"ask": [word, ...]}``.  While it waits, it does what it is told: ``{"say": text}``
prints a line, ``{"registers": [name, ...]}`` and ``{"memory": [address, length]}`` are answered
with ``{"values": {...}}`` and ``{"data": hex}`` (null for what cannot be read).  The last message
is ``{"answer": text, "value": ..., "run": [gdb command, ...]}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cosim.errors import CosimError, GdbError

_LONGEST = 64 << 20


@dataclass(frozen=True)
class Answer:
    """What a command answers."""

    text: str = ""
    """For people."""
    value: Any = None
    """The same as data, for Python functions inside gdb."""
    run: Sequence[str] = ()
    """Commands that gdb then runs."""


class Beside(Protocol):
    """Another line of gdb's."""

    def fileno(self) -> int:
        """Return the descriptor that is readable if gdb wants something."""

    def serve(self) -> None:
        """Do what gdb wants."""


@dataclass
class Link:
    """Our end of the line.

    :param line: the connected socket.
    :param beside: see there.
    """

    line: socket.socket
    beside: Beside | None = None
    """What gdb may want from us while it answers: to read a register it needs the stub."""
    _rest: bytearray = field(default_factory=bytearray)

    def fileno(self) -> int:
        """Return the descriptor that is readable if gdb asks something."""
        return self.line.fileno()

    def serve(self, answer: Callable[[Sequence[str]], Answer]) -> bool:
        """Answer one question; return False if gdb is gone.

        A :class:`CosimError` is shown to the user.
        """
        try:
            asked = self._receive()
        except GdbError:
            return False
        try:
            found = answer([str(word) for word in asked.get("ask", [])])
            self._send({"answer": found.text, "value": found.value, "run": list(found.run)})
        except GdbError:
            return False
        except CosimError as error:
            self._send({"error": str(error)})
        except OSError:
            return False
        return True

    def say(self, text: str) -> None:
        """Let gdb print a line while it waits."""
        self._send({"say": text})

    def registers(self, names: Sequence[str]) -> Mapping[str, int | None]:
        """Return the values of registers; None for those that cannot be read.

        :raises GdbError: when gdb is gone.
        """
        self._send({"registers": list(names)})
        values: dict[str, int | None] = self._receive()["values"]
        return values

    def memory(self, address: int, length: int) -> bytes | None:
        """Return physical memory, read through gdb; None if it cannot be read.

        :raises GdbError: when gdb is gone.
        """
        self._send({"memory": [address, length]})
        data = self._receive()["data"]
        return None if data is None else bytes.fromhex(data)

    def _send(self, document: Mapping[str, Any]) -> None:
        try:
            self.line.sendall(json.dumps(document).encode() + b"\n")
        except OSError:
            raise GdbError("gdb has ended") from None

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            if self.beside is not None:
                watched: list[socket.socket | Beside] = [self.line, self.beside]
                ready = select.select(watched, [], [])[0]
                if self.line not in ready:
                    self.beside.serve()
                    continue
            try:
                data = self.line.recv(1 << 16)
            except OSError:
                data = b""
            if not data or len(self._rest) > _LONGEST:
                raise GdbError("gdb has ended")
            self._rest += data
        line, _, rest = self._rest.partition(b"\n")
        self._rest = bytearray(rest)
        try:
            document: dict[str, Any] = json.loads(line)
        except ValueError:
            raise GdbError("gdb sent something else than JSON") from None
        return document
