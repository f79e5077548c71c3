"""Settings as a table of names and values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from cosim.report import number_text
from cosim.report.content import Cell, Table
from cosim.report.programs import labelled


def table(caption: str, settings: Mapping[str, Any]) -> Table:
    """Return names and values; a mapping inside gives ``outer.inner`` names."""
    rows = tuple((Cell(name), Cell(text)) for name, text in _flat(settings))
    return Table(caption, ("", ""), rows, numeric=False, detail=True)


def table_with_programs(caption: str, settings: Mapping[str, Any]) -> Table:
    """As :func:`table`, for texts that name programs."""
    rows = tuple((Cell(_text_of(name)), Cell(_text_of(text))) for name, text in _flat(settings))
    return Table(caption, ("", ""), rows, numeric=False, detail=True)


def _text_of(text: str) -> str:
    return number_text.unbroken(labelled(text))


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(name, value)


def _text(name: str, value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return hex(value) if name.endswith("base") else number_text.number(value)
        case list() if name == "arguments":
            return shlex.join(value)
        case list() | tuple():
            return ", ".join(_text(name, item) for item in value)
    return str(value)
