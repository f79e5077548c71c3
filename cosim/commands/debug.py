"""``cosim debug``: a guest's paging in gdb, forward and back."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cosim.commands.completion import guest_or_file
from cosim.commands.options import EDGES, run_options, spec_from
from cosim.commands.scenario_option import scenario_option, take_scenario
from cosim.errors import CosimError, UsageError
from cosim.session.backends import FOR_DEBUG

if TYPE_CHECKING:
    from cosim.debug.session import Debugger
    from cosim.run.run_spec import RunSpec


_FILTER = 1
"""Slots of the access filter: the fewest accesses are dropped."""


@click.command(
    epilog="\b\nExamples:\n"
    "  cosim debug micro --scenario bug-unmap --at finding\n"
    "  cosim debug linux --workload 'ls -lR /'\n"
    "  cosim debug --kernel kernel.elf --from start\n"
    "  cosim debug --attach localhost:1234 --kernel kernel.elf\n"
    "  cosim debug --print-gdbinit > paging.py; gdb -x paging.py\n"
)
@click.argument("guest", metavar="[GUEST]", required=False, shell_complete=guest_or_file)
@run_options("debug")
@scenario_option
@click.option(
    "--at",
    type=click.Choice(["finding", "divergence", "fence", "satp"]),
    help="Where the guest stands first.  Default: where the region begins.",
)
@click.option(
    "--attach",
    metavar="HOST:PORT|SOCKET",
    help="Debug a QEMU that is running already, through its gdb stub.",
)
@click.option("--print-gdbinit", is_flag=True, help="Print a file that your own gdb can source.")
@click.option("--gdb-arg", "arguments", multiple=True, metavar="ARG", help="Pass this to gdb.")
@click.option(
    "--logs", type=click.Path(path_type=Path), metavar="DIR", help="Keep logs and recording here."
)
def command(
    guest: str | None,
    scenario: str | None,
    at: str | None,
    attach: str | None,
    print_gdbinit: bool,
    arguments: tuple[str, ...],
    logs: Path | None,
    offline: bool,
    from_: str | None,
    **given: Any,
) -> int:
    """Debug a guest's paging in gdb, forward and back.

    GUEST is a name from `cosim guest list`; leave it out with --kernel.

    The guest is recorded first, up to --to.  Then gdb starts in this terminal.  It shows the
    recorded run where the region begins, with the kernel's symbols.  gdb's own commands work, also
    those that go back (reverse-stepi, reverse-continue).  The command `paging` answers questions
    about page tables; type `help paging` in gdb.

    With --at the guest stands before the first access that depends on a missing fence (`cosim
    check`), the first access that a model translates illegally, or the first fence or write of
    satp.

    With --attach nothing is recorded, and memory is read through gdb.
    """
    given |= {"from": from_}
    only_recorded = {"GUEST": guest, "--scenario": scenario, "--at": at, **_spelt(given)}
    if print_gdbinit:
        _refuse_beside("--print-gdbinit", {**only_recorded, "--attach": attach})
        from cosim import output
        from cosim.debug.gdbinit import gdbinit

        for line in gdbinit().splitlines():
            output.print_line(line)
        return 0
    if attach is not None:
        kernel = given["kernel"]
        del only_recorded["--kernel"]
        _refuse_beside("--attach", only_recorded)
        return _attach(attach, kernel, arguments, logs)
    return _record(_spec(guest, scenario, given), arguments, logs, at, offline=offline)


def _spelt(given: dict[str, Any]) -> dict[str, Any]:
    return {f"--{key.replace('_', '-')}": value for key, value in given.items()}


def _refuse_beside(option: str, others: dict[str, Any]) -> None:
    for name, value in others.items():
        if value not in (None, ()):
            raise UsageError(f"{name} cannot be used together with {option}; leave it out")


_ONCE = {
    "share": "which does not hold what a guest reads from a shared folder",
    "disk_write": "which needs the disk as it was",
}
"""Options of a guest that cannot run again, and the reason."""


def _spec(guest: str | None, scenario: str | None, given: dict[str, Any]) -> RunSpec:
    if given.get("backend") not in (None, FOR_DEBUG):
        raise UsageError("--backend: cosim debug needs both, the plugin and gdb; leave it out")
    if (given.get("smp") or 1) > 1:
        raise UsageError(
            "--smp: cosim debug goes back in a recording, and QEMU does not record several harts; "
            "use cosim run --smp N --gdb SOCKET for a gdb beside the running guest"
        )
    for key, why in _ONCE.items():
        if given.get(key):
            option = key.replace("_", "-")
            raise UsageError(
                f"--{option}: cosim debug goes back in a recording, {why}; leave it out"
            )
    take_scenario(scenario, guest, given)
    # The checker needs the accesses that a larger filter leaves out.
    return spec_from(guest, FOR_DEBUG, filter=_FILTER, **given)


def _debugger(arguments: tuple[str, ...]) -> Debugger:
    from cosim.debug.session import Debugger
    from cosim.machine import tools

    return Debugger(tools.gdb().path, arguments)


def _record(
    spec: RunSpec,
    arguments: tuple[str, ...],
    logs: Path | None,
    at: str | None,
    *,
    offline: bool,
) -> int:
    from cosim import output
    from cosim.commands.logs import folder_for
    from cosim.commands.one_run import prepare
    from cosim.debug.session import debug_recorded
    from cosim.run.plan import resolve

    prepare(spec, offline=offline)
    debugger = _debugger(arguments)
    plan = resolve(spec)
    with folder_for(logs) as folder:
        keep = logs is not None
        try:
            return debug_recorded(plan, folder, debugger, output.note, at=at)
        except CosimError as error:
            keep = True
            error.log = error.log or str(folder)
            raise
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)


def _check_target(target: str) -> None:
    """Refuse a name to which gdb cannot connect.

    :raises UsageError: when it is neither an address nor a socket or serial line.
    """
    # gdb knows further forms, as `| COMMAND` and `unix:PATH`.
    if ":" in target or target.startswith("|"):
        return
    path = Path(target)
    if not (path.is_socket() or path.is_char_device()):
        raise UsageError(f"--attach names {target}, which is neither HOST:PORT nor a socket")


def _attach(target: str, kernel: str | None, arguments: tuple[str, ...], logs: Path | None) -> int:
    from cosim.commands.logs import folder_for
    from cosim.debug.session import debug_attached
    from cosim.kernel import bootable, symbols
    from cosim.kernel.images import inspect_kernel

    _check_target(target)
    image, known = None, symbols.none()
    if kernel is not None:
        image = inspect_kernel(bootable.kernel(Path(kernel)), given=Path(kernel))
        known = symbols.load(Path(kernel))
    debugger = _debugger(arguments)
    with folder_for(logs) as folder:
        try:
            return debug_attached(target, image, known, folder, debugger)
        finally:
            if logs is None:
                shutil.rmtree(folder, ignore_errors=True)


command.help = f"{inspect.cleandoc(command.help or '')}\n\n{EDGES}"
