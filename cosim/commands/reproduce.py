"""``cosim reproduce``: the paper's experiments."""

from __future__ import annotations

from pathlib import Path

import click

from cosim.output import note, print_json, print_table, progress

_ALL = "all"


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim reproduce all -o paper\n"
    "  cosim reproduce fig5 -o paper --quick\n"
    "  cosim reproduce fig7 -o paper --json | jq '.figures[0].rows'\n"
)
@click.argument("what", metavar="fig5|fig6|refs|fig7|beyond|all")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder for data, page and captures.",
)
@click.option("--quick", is_flag=True, help="Measure small sizes; takes under two minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(what: str, output: Path, quick: bool, as_json: bool) -> int:
    """Run the experiments behind the figures of the LSP paper on real guests.

    fig5: exits of the micro-benchmark; fig6: exits by the global page table; refs: walk
    references for each TLB miss; fig7: TLB misses and exits of programs; beyond: what the paper
    could not show.  The folder gets NAME.json and NAME.csv with the plain rows of each, and
    index.html, one page of all that were run there.  Captures (in traces) and counts are kept, so
    that an interrupted run continues where it stopped, and nothing is measured twice.

    The exit status is 1 if a translation was illegal, a capture missed a store, or gdb and the
    plugin differ.
    """
    from cosim.errors import UsageError
    from cosim.report import from_path, renderers
    from cosim.report.renderers import terminal
    from cosim.reproduce import experiments

    known = tuple(experiments.EXPERIMENTS)
    if what not in (*known, _ALL):
        raise UsageError(f"no experiment {what!r}: there are {', '.join((*known, _ALL))}")
    names = known if what == _ALL else [what]
    with progress("guests") as step:
        experiments.prepare(names, quick=quick, step=step)
    with progress("reproduce", seconds=True) as step:
        figures = experiments.run(names, output, quick=quick, step=step)
        report = from_path.load(output, step)
    page = output / "index.html"
    renderers.write(report, page)
    if as_json:
        print_json({"page": str(page), "figures": [figure.to_json() for figure in figures]})
    else:
        print_table(terminal.render(report))
        note(f"the page: {page}")
    warnings = [f"{figure.figure}: {text}" for figure in figures for text in figure.warnings]
    for text in warnings:
        note(f"cosim: {text}")
    return int(bool(warnings))
