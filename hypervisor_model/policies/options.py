"""Options of policies: typed, documented, and parsed from ``NAME:key=value,key=value``.

Each policy has a frozen dataclass of options.  A field's type says what its text may be:

=================== =============================================================================
``bool``            ``on`` or ``off``
``int``             a decimal number, at least 1
``Literal[...]``    one of the words
``Roots``           ``all``, ``switch``, or a number from 1
=================== =============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin, get_type_hints

from hypervisor_model.errors import UsageError

Roots = NewType("Roots", int)
"""How many shadow roots are kept: KEEP_ALL until their table dies, a number by LRU, or
DROP_ON_SWITCH (only what a hart has loaded, as RVirt does)."""

KEEP_ALL = Roots(-1)
DROP_ON_SWITCH = Roots(0)

T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """A policy without options."""


def parse(policy: str, kind: type[T], text: str) -> T:
    """The options in ``text`` (``key=value,key=value``, may be empty) of type ``kind``.

    Raises:
        UsageError: an unknown or repeated key, or a value that the key cannot have.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if key not in names:
            known = f"it knows {', '.join(names)}" if names else "it has none"
            raise UsageError(f"policy {policy} has no option {key!r}; {known}")
        if not equals or key in values:
            problem = "is given twice" if equals else "needs a value"
            raise UsageError(f"policy {policy}: option {key} {problem}, as in {key}=VALUE")
        values[key] = _value(policy, key, hints[key], value)
    return kind(**values)


def describe(options: object) -> str:
    """The options as :func:`parse` reads them, every one with its value."""
    hints = get_type_hints(type(options))
    pairs = ((f.name, getattr(options, f.name)) for f in fields(options))  # type: ignore[arg-type]
    return ",".join(f"{name}={_text(hints[name], value)}" for name, value in pairs)


def _value(policy: str, key: str, hint: Any, text: str) -> Any:
    if hint is bool:
        choices: tuple[str, ...] = ("on", "off")
        if text in choices:
            return text == "on"
    elif get_origin(hint) is Literal:
        choices = get_args(hint)
        if text in choices:
            return text
    else:
        words = {"all": KEEP_ALL, "switch": DROP_ON_SWITCH} if hint is Roots else {}
        choices = (*words, "a number from 1")
        if text in words:
            return words[text]
        if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 31:
            return int(text)
    raise UsageError(f"policy {policy}: {key} is {' or '.join(choices)}, not {text!r}")


def _text(hint: Any, value: Any) -> str:
    if hint is bool:
        return "on" if value else "off"
    if hint is Roots and value <= 0:
        return "all" if value == KEEP_ALL else "switch"
    return str(value)
