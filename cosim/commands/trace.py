"""``cosim trace``: what a trace holds, its first events, and whether it is whole."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from cosim.commands.trace_place import TracePlace
from cosim.kernel.symbols import Symbols, what_stands_at
from cosim.output import note, print_json, print_line, print_table
from cosim.trace import describe, reader
from cosim.trace.location import Location
from cosim.trace.reader import TraceReader
from cosim.trace.run_kernel import symbols_of
from cosim.trace.schema import KIND_NAMES
from hypervisor_model.events import FIELDS, Content, Field, priv_name
from hypervisor_model.jit import unsigned

_PLACE = click.argument("place", metavar="TRACE", type=TracePlace())
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group()
def command() -> None:
    """Inspect a trace that `cosim capture` wrote.

    TRACE is a folder or a URI such as s3://BUCKET/PREFIX.

    Example: cosim trace info t
    """


@command.command(short_help="Show what the trace holds.")
@_PLACE
@_JSON
def info(place: Path | Location, as_json: bool) -> None:
    """Show what the trace holds, how large it is, and whether it is complete.

    Example: cosim trace info t
    """
    trace = TraceReader(place)
    kinds: dict[str, int] = {}
    for segment in trace.segments:
        for kind, count in segment.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    document: dict[str, Any] = {
        "format": "lsp-cosim-trace",
        "version": trace.version,
        "written_by": trace.written_by,
        "created": trace.created,
        "complete": trace.ending.complete,
        "incomplete_because": trace.ending.reason,
        "segments": len(trace.segments),
        "events": trace.events,
        "bytes": trace.size,
        "bytes_per_event": trace.size / trace.events if trace.events else None,
        "kinds": kinds,
        "labels": trace.labels,
        "processes": {number: one._asdict() for number, one in trace.processes.items()},
        "origin": trace.origin.to_json(),
        "ending": trace.ending.to_json(),
    }
    if as_json:
        print_json(document)
        return
    table = Table(show_header=False, box=None)
    table.add_column()
    # Fold long values: a path or digest that is cut is useless.
    table.add_column(overflow="fold")
    table.add_row("written by", f"{trace.written_by}, {trace.created}")
    state = "yes" if trace.ending.complete else f"no: {trace.ending.reason}"
    table.add_row("complete", state)
    size = f"{trace.size:,} bytes in {len(trace.segments)} segments"
    if trace.events:
        size += f", {trace.size / trace.events:.2f} bytes per event"
    table.add_row("size", size)
    table.add_row("events", f"{trace.events:,}")
    for kind in KIND_NAMES.values():
        if kind in kinds:
            table.add_row(f"  {kind}", f"{kinds[kind]:,}")
    for number, text in trace.labels.items():
        table.add_row(f"mark {number}", text)
    stream = trace.origin.stream
    filtered = f", through a filter of {stream.filter} slots" if stream.filter else ""
    table.add_row("backend", f"{trace.origin.backend}, accesses {stream.accesses}{filtered}")
    for title, part in (
        ("guest", trace.origin.guest),
        ("region", {**trace.origin.region, **trace.ending.region}),
        ("machine", trace.origin.machine.to_json()),
        ("audit", trace.ending.audit or {}),
    ):
        for name, value in _flat(title, part):
            table.add_row(name, value)
    print_table(table)


@command.command()
@_PLACE
@click.option("-n", "--count", default=20, show_default=True, help="How many events to show.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*KIND_NAMES.values()]),
    help="Show only events of this kind; may be given several times.",
)
@_JSON
def head(place: Path | Location, count: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Show the first events of the trace.

    Each pc has its symbol and its instruction if the kernel's file is still there and has not
    changed.

    Example: cosim trace head t -n 50 --kind pte_write --kind fence
    """
    trace = TraceReader(place)
    first = list(islice(_events(trace, kinds), max(count, 0)))
    names = symbols_of(trace.origin.guest)
    if as_json:
        columns = [field for field in FIELDS if field.content is not Content.KIND]
        print_json(
            [
                {
                    "event": number,
                    "kind": describe.kind_name(int(event["kind"])),
                    **{field.name: _stored(event, field) for field in columns},
                    **dict(zip(("symbol", "instruction"), _place(event, names), strict=True)),
                }
                for number, event in first
            ]
        )
        return
    table = Table(box=None)
    for title in ("event", "icount"):
        table.add_column(title, justify="right")
    for title in ("pc", "", "kind", "", "at"):
        table.add_column(title, overflow="fold")
    for number, event in first:
        table.add_row(
            str(number),
            "" if event["icount"] < 0 else str(event["icount"]),
            describe.hexadecimal(int(event["pc"])),
            priv_name(int(event["priv"])),
            describe.kind_name(int(event["kind"])),
            describe.details(event, trace.labels, trace.processes),
            ": ".join(filter(None, _place(event, names))),
        )
    print_table(table)


@command.command()
@_PLACE
@_JSON
def verify(place: Path | Location, as_json: bool) -> int:
    """Check every byte of the trace.

    The exit status is 1 if something is wrong: a segment is damaged, missing or left over, the
    trace is cut, or the capture is incomplete.

    Example: cosim trace verify t
    """
    findings = reader.verify(place)
    if as_json:
        print_json({"ok": not findings, "findings": findings})
    else:
        for finding in findings:
            print_line(finding)
        if not findings:
            note(f"{place}: complete, all checksums match")
    return 1 if findings else 0


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a row for each part of ``value``; a list of texts reads as a shell command."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name} {key}", part)
    elif isinstance(value, list) and all(isinstance(part, str) for part in value):
        yield name, shlex.join(value)
    else:
        yield name, str(value)


def _events(trace: TraceReader, kinds: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    wanted = [number for number, name in KIND_NAMES.items() if not kinds or name in kinds]
    first = 0
    for batch in trace.batches():
        for index in np.flatnonzero(np.isin(batch["kind"], wanted)).tolist():
            yield first + index, batch[index]
        first += len(batch)


def _place(event: Any, names: Symbols | None) -> tuple[str | None, str | None]:
    """Return symbol and instruction at the event's pc, as far as the kernel's file tells them."""
    return what_stands_at(unsigned(int(event["pc"])), priv_name(int(event["priv"])), names)


def _stored(event: Any, field: Field) -> int | None:
    """Return the number that a trace stores for the field."""
    value = int(event[field.name])
    if field.content is Content.COUNT:
        return None if value < 0 else value
    return unsigned(value)
