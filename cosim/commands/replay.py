"""``cosim replay``: the models over a trace."""

from __future__ import annotations

from pathlib import Path

import click

from cosim.models.choices import make_pipeline, parse_tlb, split_models
from cosim.models.result import has_finding
from cosim.output import print_json, print_table, progress
from cosim.report import from_result
from cosim.report.renderers import terminal
from cosim.trace.reader import TraceReader
from cosim.trace.replay import replay


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim replay t\n"
    "  cosim replay t --model shadow:roots=4,lsp --tlb data=64x4,second=none --json\n"
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="The policies.")
@click.option(
    "--tlb",
    metavar="K=V,..",
    help="Each hart's TLB: data, fetch, second = SETSxWAYS or none; replacement; seed.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print every counter, not only the answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    folder: Path, models: tuple[str, ...], tlb: str | None, verbose: bool, as_json: bool
) -> int:
    """Feed the trace in DIR to the models and print the same result as a live run.

    If the trace is cut short, what is there is replayed, and the result says so.  The exit status
    is 1 if a translation was illegal or the capture missed a write.
    """
    trace = TraceReader(folder)
    machine = {} if tlb is None else {"tlb": parse_tlb(tlb)}
    pipeline = make_pipeline(trace.origin, split_models(models), machine)
    with progress("replay") as step:
        result = replay(trace, pipeline, step)
    if as_json:
        print_json(result)
    else:
        print_table(terminal.render(from_result.build(result), everything=verbose))
    return int(has_finding(result))
