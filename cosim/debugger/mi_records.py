"""The records of gdb's machine interface: parses what gdb prints, quotes what it reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pygdbmi.gdbmiparser import parse_response

from cosim.errors import UsageError

# Stream records are plain strings; pygdbmi needs seconds for one of some thousand characters.
_STREAMS = {"~": "console", "@": "target", "&": "log"}
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"e": b"\033", b"a": b"\a", b"b": b"\b"}


@dataclass(frozen=True)
class GdbStop:
    """A stop of the guest, as gdb tells of it (``*stopped``)."""

    reason: str
    """gdb's word (``breakpoint-hit``, ``end-stepping-range``, ``signal-received``, ``exited``,
    ``exited-normally``, ``exited-signalled``); empty if gdb gives none."""
    pc: int | None
    """Where the guest stands; None if it has ended."""
    breakpoint: int | None = None
    """Number of the breakpoint hit."""
    signal: str | None = None
    """``SIGINT`` after an interrupt, ``SIGTRAP``, ..."""
    fields: dict[str, Any] = field(default_factory=dict, compare=False)
    """All that gdb said."""

    @property
    def ended(self) -> bool:
        """True if the guest is gone."""
        return self.reason.startswith("exited")


def parse(line: str) -> dict[str, Any]:
    """Parse one line of gdb's output: ``type``, ``message``, ``payload``, ``token``, as pygdbmi.

    It never raises.  An answer that cannot be read becomes an ``error`` answer with its token.
    Any other such line becomes a ``log`` text.
    """
    if line[:1] in _STREAMS and line[1:2] == '"':
        return {"type": _STREAMS[line[0]], "payload": _unescape(line[2:].removesuffix('"'))}
    try:
        record: dict[str, Any] = parse_response(line)
    except Exception as error:
        # The parser raises all kinds on what it does not understand.
        token = re.match(r"\d+(?=\^)", line)
        message = f"unreadable answer {line[:100]!r} ({type(error).__name__})"
        return {
            "type": "result" if token else "log",
            "message": "error",
            "payload": {"msg": message} if token else message,
            "token": int(token[0]) if token else None,
        }
    return record


def _unescape(text: str) -> str:
    """Return the text inside a C string; bytes in octal are UTF-8."""

    def character(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255]) if len(code) == 3 else _ESCAPES.get(code, code)

    return re.sub(rb"\\([0-7]{3}|.)", character, text.encode()).decode("utf-8", "replace")


def quote(text: str) -> str:
    """Return ``text`` as one argument of an MI command.

    :raises UsageError: when it is more than one line.
    """
    if "\n" in text:
        raise UsageError(f"{text!r} is no single line")
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def stop_of(payload: dict[str, Any]) -> GdbStop:
    """Return the stop that the fields of a ``*stopped`` record describe."""
    reason = payload.get("reason", "")
    # Several reasons at once come as a list.  The first one matters.
    reason = reason[0] if isinstance(reason, list) else reason
    pc = payload.get("frame", {}).get("addr")
    number = payload.get("bkptno")
    return GdbStop(
        reason=str(reason),
        pc=int(pc, 16) if pc else None,
        breakpoint=int(number) if number else None,
        signal=payload.get("signal-name"),
        fields=payload,
    )
