"""``cosim report``: a page to read, print and pass on."""

from __future__ import annotations

from pathlib import Path

import click

from cosim.commands.trace_place import TracePlace
from cosim.errors import UsageError
from cosim.output import note, print_json, print_table, progress
from cosim.sweep.state_file import is_sweep
from cosim.trace.location import Location


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim run linux --json > result.json; cosim report result.json\n"
    "  cosim report results/fork -o fork.html\n"
)
@click.argument("path", metavar="PATH", type=TracePlace())
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page (.html); by default beside PATH.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(path: Path | Location, output: Path | None, as_json: bool) -> None:
    """Make one self-contained HTML page of PATH, and print its tables.

    PATH is a result (the JSON of `cosim run` or `cosim replay`), the folder of a run, of
    `cosim reproduce` or of `cosim sweep`, or a trace (its folder or URI), which is replayed with
    the default models.
    By default the page of a file is beside it, with the suffix .html; the page of a folder is
    report.html in it.  The page needs no network and no script.
    """
    from cosim.report import from_path, renderers
    from cosim.report.renderers import terminal
    from cosim.sweep import sweep_report

    target = output or _beside(path)
    renderers.for_file(target)
    with progress("report") as step:
        if isinstance(path, Path) and is_sweep(path):
            report = sweep_report.build(path)
        else:
            report = from_path.load(path, step)
    size = renderers.write(report, target)
    if as_json:
        sections = [section.slug for section in report.sections]
        print_json({"page": str(target), "bytes": size, "sections": sections})
        return
    print_table(terminal.render(report))
    note(f"the page: {target}")


def _beside(path: Path | Location) -> Path:
    if not isinstance(path, Path):
        raise UsageError(f"{path}: say with -o where to write the page")
    return path / "report.html" if path.is_dir() else path.with_suffix(".html")
