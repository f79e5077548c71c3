"""``--expect`` and ``--send``: a dialogue with the guest's console on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosim.errors import UsageError

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b", "\\": "\\"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def steps(expect: Sequence[str], send: Sequence[str]) -> list[dict[str, str]] | None:
    """Return the dialogue as a run file would have it; None if there is none.

    :param expect: the patterns to wait for, one for each text.
    :param send: the texts to type, with escapes such as ``\\n``.
    :raises UsageError: when there are not as many patterns as texts, or an escape is unknown.
    """
    if len(expect) != len(send):
        raise UsageError(
            f"--expect is given {len(expect)} times and --send {len(send)} times; give one --send "
            "for each --expect (--send '' types nothing)"
        )
    return [
        {"expect": pattern, "send": unescape(text)}
        for pattern, text in zip(expect, send, strict=True)
    ] or None


def unescape(text: str) -> str:
    """Return ``text`` with its escapes replaced.

    :raises UsageError: when an escape is unknown.
    """

    def replace(match: re.Match[str]) -> str:
        code = match[1]
        if code.startswith("x") and len(code) == 3:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise UsageError(
                f"--send has the unknown escape {match[0]!r}; there are "
                r"\n, \r, \t, \e, \\ and \xHH"
            )
        return _ESCAPES[code]

    return _ESCAPE.sub(replace, text)
