"""``cosim export``: a trace as a file for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cosim.commands.options import machine_option
from cosim.commands.trace_place import TracePlace

if TYPE_CHECKING:
    from cosim.trace.location import Location
    from cosim.trace.reader import TraceReader


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim export t --perfetto t.pftrace\n"
    "  cosim export t --perfetto t.pftrace --model shadow,lsp\n"
)
@click.argument("place", metavar="TRACE", type=TracePlace())
@click.option(
    "--perfetto",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write a Perfetto trace here.",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="Policies to model."
)
@machine_option()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    place: Path | Location,
    target: Path,
    models: tuple[str, ...],
    machine: str | None,
    as_json: bool,
) -> None:
    """Write the trace as a Perfetto trace, with the exits and TLB misses of each policy.

    TRACE is a folder that `cosim capture` wrote, or a URI such as s3://BUCKET/PREFIX.

    Open the file with https://ui.perfetto.dev, or with a copy of that page on your own machine.
    One nanosecond of its time axis is one instruction of the guest.  A trace that gdb
    alone made has no instruction counts; there it is one event.

    The tracks are the harts, the address spaces (those of a Linux process as tracks of that
    process), the exits of each policy, and counters of exits and TLB misses.  The trace is replayed
    for this.
    """
    from cosim.output import note, print_json

    counts = _export(place, target, models, machine)
    size = target.stat().st_size
    if as_json:
        print_json({"file": str(target), "bytes": size, **counts})
        return
    note(f"{target}: {size:,} bytes; open it with https://ui.perfetto.dev")


def _export(
    place: Path | Location, target: Path, models: tuple[str, ...], machine: str | None
) -> dict[str, object]:
    from cosim.files import writing
    from cosim.models.model_options import (
        DEFAULT_MODELS,
        compile_models,
        make_models,
        parse_machine,
        split_models,
    )
    from cosim.output import note, progress
    from cosim.trace.perfetto import PerfettoFile
    from cosim.trace.reader import TraceReader
    from cosim.trace.run_kernel import symbols_of
    from hypervisor_model.policies.machine import replace_fields

    trace = TraceReader(place)
    origin, names = trace.origin, split_models(models) or list(DEFAULT_MODELS)
    fields = {} if machine is None else parse_machine(machine)
    with progress("loading the models (the first time compiles them: half a minute)"):
        compile_models(origin, names)
    policies = make_models(names, replace_fields(origin.machine, fields), origin.stream)
    fresh = {name: policy.result() for name, policy in policies.items()}
    start, instructions = _length(trace)
    symbols = symbols_of(origin.guest)
    with progress("export") as step, writing(target) as file:
        export = PerfettoFile(
            file,
            str(origin.guest.get("name", "guest")),
            list(policies),
            instructions=instructions,
            timed=start is not None,
            start=start or 0,
            labels=trace.labels,
            lookup=symbols.lookup if symbols else None,
            without_misses=[name for name, one in fresh.items() if one.tlb_misses is None],
            harts=origin.machine.harts,
            processes=trace.processes,
        )
        done = 0
        for batch in trace.batches():
            for policy in policies.values():
                policy.feed(batch)
            export.feed(
                batch,
                [policy.exits_taken for policy in policies.values()],
                [policy.misses_taken for policy in policies.values()],
            )
            done += len(batch)
            step(done, trace.events)
        export.close()
    results = {name: policy.result() for name, policy in policies.items()}
    if origin.nameless is not None:
        note(f"address spaces have no names of processes: {origin.nameless}")
    for name, result in results.items():
        for key in ("exits.total", "tlb_misses"):
            if key in result.reasons:
                note(f"{name}, {key}: {result.reasons[key]}")
    return {
        "time": "instructions" if start is not None else "events",
        "policies": {
            name: {"exits": result.at_least, "misses": result.tlb_misses}
            for name, result in results.items()
        },
    }


def _length(trace: TraceReader) -> tuple[int | None, int]:
    """Return the instruction count at which the trace begins, and its length.

    The count is None if instructions are not counted; the length is in events then.
    """
    first = next((one.first_icount for one in trace.segments if one.first_icount is not None), None)
    last = max(
        (one.last_icount for one in trace.segments if one.last_icount is not None), default=0
    )
    return (None, trace.events) if first is None else (first, last - first)
