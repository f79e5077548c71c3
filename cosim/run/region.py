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

    A ``mark`` or an ``address`` is exact: the region begins or ends before that instruction.  For
    ``console`` it is where the guest was when the pattern was noticed.
    """

    form: Form
    text: str
    """As the user wrote it."""
    label: str = ""
    pattern: str = ""
    address: int = 0


def parse(text: str, symbols: Symbols, *, end: bool) -> Edge:
    """Return the edge that ``text`` names.

    The forms are ``mark:LABEL``, ``console:PATTERN`` (a regular expression), ``boot`` (only where
    a region begins), ``power-off`` (only where it ends), an address (``0x...``) and a symbol of the
    kernel.

    :param end: True for the end of a region, False for its beginning.
    :raises UsageError: when it is none of these, or when the symbol is unknown or ambiguous.
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
            address = int(text, 0)
        except ValueError:
            raise UsageError(f"{text!r} is not an address; write it as 0x...") from None
        if address >> 64:
            raise UsageError(f"{text!r} is not an address: it has more than 64 bits")
        return Edge("address", text, address=address)
    return Edge("address", text, address=symbols.address(text))
