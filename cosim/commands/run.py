"""``cosim run``: the main job, live."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import EDGES, make_spec, refuse_beside_file, run_options
from cosim.errors import UsageError


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim run linux\n"
    "  cosim run linux --json --model shadow,lsp > result.json\n"
    "  cosim run micro --workload 'scenario=lsp-bench pages=64 ops=500 share=50' --step-all\n"
    "  cosim run --kernel vmlinux --append 'console=ttyS0' --from start_kernel --to 0x80201000\n"
    "  cosim run linux --live\n"
    "  cosim run linux --backend plugin --gdb /tmp/gdb.sock\n"
    "  cosim run scripts/runs/overnight.toml -o results\n"
)
@click.argument("guest", required=False, shell_complete=guest_or_file)
@run_options
@click.option("--step", type=int, metavar="N", help="Step N instructions after each event.")
@click.option("--step-all", is_flag=True, help="Step the whole region (small guests only).")
@click.option("--live", is_flag=True, help="No recording: type into the guest while it runs.")
@click.option("--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="The policies.")
@click.option("--stop-on-divergence", is_flag=True, help="Stop at the first illegal translation.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the session's logs here.")
@click.option("--mi-log", type=click.Path(path_type=Path), help="gdb's MI transcript goes here.")
@click.option("--gdb", metavar="SOCKET", help="Plugin: the guest waits for your gdb there.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Results of a run file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    guest: str | None,
    step_all: bool,
    live: bool,
    models: tuple[str, ...],
    logs: Path | None,
    mi_log: Path | None,
    gdb: str | None,
    output: Path | None,
    as_json: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Boot GUEST under QEMU, intercept its paging, feed the models, compare, print the table.

    GUEST is a guest of `cosim guest list`, or a run file (*.toml); leave it out with --kernel.
    The guest is recorded first, then replayed under gdb; with --backend plugin it runs once, at
    QEMU's own speed, and --gdb lets a gdb of yours stop, step and inspect it meanwhile; where the
    plugin cannot be had, gdb does it and a line says so.
    """
    from cosim.commands.batch import run_file
    from cosim.models import choices as modelling
    from cosim.session import execute as launch

    if guest is not None and guest.endswith(".toml"):
        refuse_beside_file(guest)
        return run_file(Path(guest), output, as_json=as_json, trace=False)
    if output is not None:
        raise UsageError(
            "-o is for the results of a run file; `cosim capture` keeps a trace, --json prints the "
            "result"
        )
    given["stop_on_divergence"] = given["stop_on_divergence"] or None
    spec = make_spec(guest, "mi", models=modelling.split_models(models), **{"from": from_}, **given)
    return launch.run_and_print(
        spec,
        as_json=as_json,
        step_all=step_all,
        live=live,
        logs=logs,
        mi_log=mi_log,
        gdb=Path(gdb).absolute() if gdb else None,
    )


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
