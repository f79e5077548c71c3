#!/usr/bin/env python3
"""Write the tables of docs/trace.md anew from hypervisor_model/events.py.

    scripts/trace_tables.py

Run it after a change of the description of events.  A test compares the document with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cosim.trace.schema import CURRENT
from hypervisor_model.events import KINDS, Content, Field, Form, Kind, Value

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "trace.md"


def parquet_type(field: Field) -> str:
    match field.content:
        case Content.COUNT:
            return "INT64, optional"
        case Content.WORD:
            return "UINT_64"
        case Content.KIND:
            return "STRING"
        case _:
            return field.type.upper().replace("UINT", "UINT_")


def meaning(field: Field) -> str:
    text = field.meaning
    if field.content is Content.COUNT:
        text += "; null if unknown"
    if field.since > 1:
        text += f" (since version {field.since})"
    return text


def columns() -> Iterator[str]:
    yield f"These are the columns of version {CURRENT.version}:"
    yield ""
    yield "| column | Parquet type | unit | meaning |"
    yield "|---|---|---|---|"
    yield "| `event` | INT64 | | number of the event in the trace, from 0, in program order |"
    for field in CURRENT.fields:
        yield f"| `{field.name}` | {parquet_type(field)} | {field.unit} | {meaning(field)} |"


def stored(value: Value) -> str:
    """The column that holds a value, the bits of it, and the condition."""
    bits = "" if value.mask is None else f" & {value.mask}"
    needs = f" if `sub` & {int(value.needs)}" if value.needs else ""
    return f"`{value.field}`{bits}{needs}"


def said(value: Value) -> str:
    if value.form is not Form.NAME:
        return value.meaning
    names = ", ".join(f"{number} `{name}`" for number, name in value.names.items())
    return f"{value.meaning}: {names}"


def kinds() -> Iterator[str]:
    yield "| `kind` | column | in `cosim query` | meaning |"
    yield "|---|---|---|---|"
    for kind in Kind:
        description = KINDS[kind]
        since = f" (since version {description.since})" if description.since > 1 else ""
        name = f"`{kind.name.lower()}`"
        yield f"| **{name}** | | `{description.plural}` | **{description.meaning}**{since} |"
        for value in description.values:
            yield f"| | {stored(value)} | `{value.name}` | {said(value)} |"


def updated(text: str) -> str:
    """``text`` with each table between its two markers written anew."""
    for name, table in (("columns", columns()), ("kinds", kinds())):
        begin, end = f"<!-- {name}: by scripts/trace_tables.py -->", f"<!-- {name}: end -->"
        between = re.compile(f"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
        body = "\n".join(table) + "\n"
        parts = between.split(text)
        if len(parts) != 4:
            raise SystemExit(f"{DOCUMENT}: the markers of the table {name!r} are missing")
        before, opening, closing, after = parts
        text = before + opening + body + closing + after
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text()))
