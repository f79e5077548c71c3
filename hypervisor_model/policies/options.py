"""Options of policies: typed, documented, and parsed from ``NAME:key=value,key=value``.

Each policy has a frozen dataclass of options, whose fields :func:`option` makes.  A field's type
says what its text may be:

=================== =============================================================================
``bool``            ``on`` or ``off``
``int``             a decimal number, at least 1
``Literal[...]``    one of the words
``Roots``           ``all``, ``switch``, or a number from 1
=================== =============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, NewType, TypeVar, get_args, get_origin, get_type_hints

from hypervisor_model.errors import UsageError

Roots = NewType("Roots", int)
"""How many shadow roots are kept: KEEP_ALL until their table dies, a number by LRU, or
DROP_ON_SWITCH (only what a hart has loaded, as RVirt does)."""

KEEP_ALL = Roots(-1)
DROP_ON_SWITCH = Roots(0)

ROOTS_DOC = "shadow roots kept: all until their table dies, so many by LRU, or loaded ones only"
"""What the option ``roots`` of several policies does."""

T = TypeVar("T")


def option(default: Any, doc: str) -> Any:
    """Return a field of a dataclass of options.

    :param default: the value if the user gives none.
    :param doc: what the option does, as ``--help`` says it; begins with a small letter.
    """
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class NoOptions:
    """A policy without options."""


class OptionDoc(NamedTuple):
    """One option, as a user sees it."""

    name: str
    values: tuple[str, ...]
    """What can be written: words, or "a number from 1"."""
    default: str
    doc: str


def documentation(kind: type[Any]) -> tuple[OptionDoc, ...]:
    """Return what can be said for the options of a policy.

    :param kind: the dataclass of options, which a policy's class has as ``options``.
    """
    hints = get_type_hints(kind)
    return tuple(
        OptionDoc(
            f.name, _choices(hints[f.name]), _text(hints[f.name], f.default), f.metadata["doc"]
        )
        for f in fields(kind)
    )


def parse(policy: str, kind: type[T], text: str) -> T:
    """Return the options in ``text`` (``key=value,key=value``, may be empty) of type ``kind``.

    :raises UsageError: when a key is unknown or repeated, or cannot have its value.
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
    """Return the options as :func:`parse` reads them, every one with its value."""
    hints = get_type_hints(type(options))
    pairs = ((f.name, getattr(options, f.name)) for f in fields(options))  # type: ignore[arg-type]
    return ",".join(f"{name}={_text(hints[name], value)}" for name, value in pairs)


_ROOTS = {"all": KEEP_ALL, "switch": DROP_ON_SWITCH}
_SWITCH = {"on": True, "off": False}


def _words(hint: Any) -> dict[str, Any]:
    """Return the words that a value can be, with their meanings."""
    if hint is bool:
        return _SWITCH
    if get_origin(hint) is Literal:
        return {word: word for word in get_args(hint)}
    return dict(_ROOTS) if hint is Roots else {}


def _is_number(hint: Any) -> bool:
    return hint is Roots or hint is int


def _choices(hint: Any) -> tuple[str, ...]:
    return (*_words(hint), *(("a number from 1",) if _is_number(hint) else ()))


def _value(policy: str, key: str, hint: Any, text: str) -> Any:
    words = _words(hint)
    if text in words:
        return words[text]
    number = text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 31
    if _is_number(hint) and number:
        return int(text)
    raise UsageError(f"policy {policy}: {key} is {' or '.join(_choices(hint))}, not {text!r}")


def _text(hint: Any, value: Any) -> str:
    for word, meaning in _words(hint).items():
        if meaning == value:
            return word
    return str(value)
