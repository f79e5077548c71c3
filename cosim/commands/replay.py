"""``cosim replay``: the models over a trace."""

from __future__ import annotations

from pathlib import Path

import click

from cosim.commands.options import machine_option
from cosim.commands.trace_place import TracePlace
from cosim.errors import UsageError
from cosim.models.model_options import (
    compile_models,
    make_pipeline,
    parse_machine,
    parse_tlb,
    split_models,
)
from cosim.models.result import has_finding
from cosim.output import print_json, print_table, progress
from cosim.report import from_result
from cosim.report.renderers import terminal
from cosim.trace.location import Location
from cosim.trace.reader import TraceReader
from cosim.trace.replay import replay


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim replay t\n"
    "  cosim replay t --model shadow:roots=4,lsp --tlb data=64x4,second=none --json\n"
    "  cosim replay t --machine gstage_page=2M,footprint_data=0,footprint_code=0\n"
)
@click.argument("place", metavar="TRACE", type=TracePlace())
@click.option(
    "--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="Policies to model."
)
@machine_option()
@click.option("--tlb", metavar="K=V,..", help="Each hart's TLB; the same as --machine tlb.K=V,..")
@click.option("-v", "--verbose", is_flag=True, help="Print every counter, not only the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    place: Path | Location,
    models: tuple[str, ...],
    machine: str | None,
    tlb: str | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Feed the trace to the models and print the same result as a live run.

    TRACE is a folder that `cosim capture` wrote, or a URI such as s3://BUCKET/PREFIX.  If it is cut
    short, what is there is replayed, and the result says so.  The exit status
    is 1 if a translation was illegal or the capture missed a write.

    The modelled machine is the one of the capture.  --machine replaces what it names.
    """
    trace = TraceReader(place)
    fields = {} if machine is None else parse_machine(machine)
    if tlb is not None:
        if "tlb" in fields:
            raise UsageError("--tlb cannot be used together with a tlb.PART of --machine")
        fields["tlb"] = parse_tlb(tlb)
    with progress("loading the models (the first time compiles them: half a minute)"):
        compile_models(trace.origin, split_models(models))
    pipeline = make_pipeline(trace.origin, split_models(models), fields)
    with progress("replay") as step:
        result = replay(trace, pipeline, step)
    if as_json:
        print_json(result)
    else:
        print_table(terminal.render(from_result.build(result), everything=verbose))
    return int(has_finding(result))
