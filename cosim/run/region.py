"""The region of interest: where events begin to count, and where they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cosim.errors import UsageError
from cosim.kernel.symbols import Symbols

Form = Literal["boot", "power-off", "mark", "console", "address"]


@dataclass(frozen=True)
class Edge:
    """One end of a region.

    ``mark`` and ``address`` are exact to the instruction (the region begins, or ends, before it
    executes); ``console`` is where the pattern was noticed.
    """

    form: Form
    text: str
    """As the user wrote it."""
    label: str = ""
    pattern: str = ""
    address: int = 0


def parse(text: str, symbols: Symbols, *, end: bool) -> Edge:
    """The edge that ``--from`` (``--to`` where ``end``) names.

    Forms: ``mark:LABEL``, ``console:PATTERN`` (a regular expression), ``boot`` (from only),
    ``power-off`` (to only), an address (``0x...``), or a symbol of the kernel.

    :raise UsageError: when it is none of these; the symbol is unknown or stands in two places.
    """
    form, colon, rest = text.partition(":")
    if colon and form == "mark":
        return Edge("mark", text, label=rest)
    if colon and form == "console":
        return Edge("console", text, pattern=rest)
    if text == "boot" and not end:
        return Edge("boot", text)
    if text == "power-off" and end:
        return Edge("power-off", text)
    if text[:1].isdigit():
        try:
            return Edge("address", text, address=int(text, 0))
        except ValueError:
            raise UsageError(f"{text!r} is no address; write it as 0x...") from None
    return Edge("address", text, address=symbols.address(text))
