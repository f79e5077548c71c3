"""``cosim run``: the main job, live."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import (
    EDGES,
    jobs_option,
    refuse_beside_file,
    refuse_jobs,
    run_options,
    spec_from,
)
from cosim.errors import UsageError
from cosim.session.backends import FOR_RUN


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim run linux\n"
    "  cosim run linux --json --model shadow,lsp > result.json\n"
    "  cosim run micro --workload 'scenario=lsp-bench pages=64 ops=500 share=50' --step-all\n"
    "  cosim run --kernel vmlinux --append 'console=ttyS0' --from start_kernel --to 0x80201000\n"
    "  cosim run micro --model nested --machine gstage_page=2M,tlb.data=16x4 --filter 16\n"
    "  cosim run linux --live\n"
    "  cosim run linux --backend plugin --gdb /tmp/gdb.sock\n"
    "  cosim run scripts/runs/overnight.toml -o results --jobs 4\n"
)
@click.argument("guest", required=False, shell_complete=guest_or_file)
@run_options("run")
@click.option("--live", is_flag=True, help="Do not record: type into the guest while it runs.")
@click.option(
    "--runs",
    type=int,
    metavar="K",
    help="With --smp: run the guest K times; give each count's median and spread.",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME[:K=V,..],..", help="Policies to model."
)
@click.option("--stop-on-divergence", is_flag=True, help="Stop at the first illegal translation.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep the session's logs here.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the results of a run file."
)
@jobs_option
@click.option("-v", "--verbose", is_flag=True, help="Print every counter, not only the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    guest: str | None,
    live: bool,
    models: tuple[str, ...],
    stop_on_divergence: bool,
    logs: Path | None,
    output: Path | None,
    jobs: int | None,
    verbose: bool,
    as_json: bool,
    offline: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Boot GUEST under QEMU, intercept its paging, feed the models, compare, print the answer.

    GUEST is a name from `cosim guest list` or a run file (*.toml).  Leave it out with --kernel.

    By default the guest is recorded with the plugin loaded, which sees every access.  Then gdb
    stops the re-execution of that run at every fence, satp write and table store, and each of its
    events must be one of the plugin's.  With --backend plugin or --backend gdb only one of them is
    used.  With --backend plugin --gdb your own gdb can stop, step and inspect the guest.  If the
    plugin cannot be loaded, gdb is used alone and a line says so.

    A guest that is missing is built or fetched first.
    """
    from cosim.commands.many_runs import do_runs
    from cosim.commands.one_run import run_and_print
    from cosim.models.model_options import split_models

    if guest is not None and guest.endswith(".toml"):
        refuse_beside_file(guest)
        return do_runs(
            Path(guest), output, as_json=as_json, trace=False, offline=offline, jobs=jobs or 1
        )
    refuse_jobs(jobs)
    if output is not None:
        raise UsageError(
            "-o works only with a run file; use `cosim capture` to keep a trace, or --json to "
            "print the result"
        )
    given |= {
        "from": from_,
        "live": live or None,
        "models": split_models(models),
        "stop_on_divergence": stop_on_divergence or None,
    }
    spec = spec_from(guest, FOR_RUN, **given)
    return run_and_print(spec, as_json=as_json, logs=logs, offline=offline, verbose=verbose)


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
