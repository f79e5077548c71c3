"""Options that ``cosim run`` and ``cosim capture`` share, and the run that they describe."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar

import click

from cosim.commands import dialogue_options
from cosim.errors import GuestImageError, UsageError
from cosim.run.backend_options import all_options
from cosim.run.names import CommandLine
from cosim.run.run_spec import RunSpec
from cosim.session.backends import BACKENDS

F = TypeVar("F", bound=Callable[..., Any])

EDGES = """An EDGE is mark:LABEL (set by the guest's program), console:PATTERN, an address, a
symbol of the kernel, boot (only --from) or power-off (only --to)."""


def run_options(command: str, without: Container[str | None] = ()) -> Callable[[F], F]:
    """Return a decorator that adds the options of ``command`` that describe a run.

    :param without: names of options that the command cannot have.
    """

    def decorate(function: F) -> F:
        for option in reversed([*_common(command), *_of_backends(command)]):
            # Click keeps them in this list until the command is made.
            before = list(getattr(function, "__click_params__", []))
            decorated = option(function)
            if decorated.__click_params__[-1].name in without:
                decorated.__click_params__ = before
        return function

    return decorate


def _common(command: str) -> list[Callable[[Any], Any]]:
    without = "; none with --live or --gdb" if command == "run" else ""
    return [
        click.option(
            "--kernel",
            metavar="FILE",
            help="Boot this ELF file or Linux Image.  It may be compressed, or a vmlinuz.efi.",
        ),
        click.option(
            "--load-address",
            metavar="ADDR",
            help="Physical address of a --kernel that is a flat binary; it starts there.",
        ),
        click.option("--initrd", metavar="FILE", help="Initial RAM disk for --kernel."),
        click.option(
            "--append", metavar="STR", help="Kernel command line (added to a named guest's own)."
        ),
        click.option(
            "--bios",
            metavar="none|FILE",
            help="Firmware; --kernel is then optional.  none: the kernel starts in M-mode.",
        ),
        click.option("--memory", metavar="SIZE", help="Guest RAM, for example 512M."),
        click.option("--cpu", metavar="STR", help="QEMU's -cpu, for example rv64,sv57=off."),
        click.option(
            "--smp",
            type=int,
            metavar="N",
            help="Harts, up to 8.  Several run in real time, through the plugin, unrecorded.",
        ),
        *_devices(),
        *_snapshot(command),
        click.option(
            "--from", "from_", metavar="EDGE", help="Where the region of interest begins."
        ),
        click.option("--to", metavar="EDGE", help="Where the region of interest ends."),
        click.option(
            "--offline", is_flag=True, help="Fail if the guest has to be built or fetched first."
        ),
        click.option("--workload", metavar="COMMAND", help="What the guest's own init runs."),
        machine_option(),
        click.option(
            "--expect",
            multiple=True,
            metavar="PATTERN",
            help="Wait for this on the guest's console, then type what --send says.  Repeatable.",
        ),
        click.option(
            "--send",
            multiple=True,
            metavar="TEXT",
            help="What to type then, one for each --expect, with escapes as in C.",
        ),
        click.option(
            "--backend",
            metavar="|".join(BACKENDS),
            help="Where events come from.",
            # The others take only one, and say so.
            hidden=command not in ("run", "capture"),
        ),
        click.option(
            "--time-limit",
            type=float,
            metavar="SECONDS",
            help=f"Give up after this long.  Default: 600{without}.",
        ),
    ]


def _snapshot(command: str) -> list[Callable[[Any], Any]]:
    if command not in ("run", "capture"):
        return []
    said = "Start from what `cosim snapshot` saved."
    return [click.option("--from-snapshot", metavar="FILE", help=said)]


def _devices() -> list[Callable[[Any], Any]]:
    return [
        click.option(
            "--disk",
            multiple=True,
            metavar="FILE[,K=V..]",
            help="A virtio disk; never written.  format=raw|qcow2; bus=pci|mmio|mmio-legacy.  "
            "Repeatable.",
        ),
        click.option(
            "--disk-write",
            is_flag=True,
            default=None,
            help="Write the guest's changes to the files of --disk.",
        ),
        click.option(
            "--disk-limit",
            metavar="SIZE",
            help="End the run if the guest writes more than this to its disks.",
        ),
        click.option("--net", metavar="user|none", help="A network card behind QEMU's router."),
        click.option(
            "--share",
            multiple=True,
            metavar="DIR[,K=V..]",
            help="A folder that the guest can mount (9p).  tag=NAME; write=on|off.  Repeatable.",
        ),
        click.option("--board", metavar="K=V,..", help="QEMU's virt board: aia=aplic-imsic ..."),
        click.option("--dtb", metavar="FILE", help="Device tree, instead of QEMU's own."),
        click.option(
            "--pflash", metavar="CODE[,VARS]", help="The board's flash chips; never written."
        ),
        click.option(
            "--initrd-add",
            multiple=True,
            metavar="FILE[,to=PATH]",
            help="Add a file or folder to the initramfs.  Repeatable.",
        ),
        click.option(
            "--qemu", metavar="ARGS", help="Further arguments for QEMU, quoted as one word."
        ),
        click.option("--like", metavar="xv6", help="Machine and disk as in the Makefile of xv6."),
    ]


def machine_option() -> Callable[[F], F]:
    """Return the option ``--machine``."""
    return click.option(
        "--machine",
        metavar="K=V,..",
        help="The modelled hardware and hypervisor: setup=base|h; gstage_mode=sv39|sv48|sv57; "
        "gstage_page=4K|2M; walk_cache_ways, footprint_data, footprint_code = N; "
        "tlb.data, tlb.fetch, tlb.second = SETSxWAYS|none; tlb.replacement, tlb.superpages, "
        "tlb.seed.",
    )


def _of_backends(command: str) -> list[Callable[[Any], Any]]:
    made = []
    for key, option in all_options(BACKENDS).items():
        if command not in option.commands:
            continue
        name = option.spelling or f"--{key.replace('_', '-')}"
        if option.metavar:
            made.append(
                click.option(
                    name,
                    key,
                    type=click.Path(path_type=Path) if option.kind is Path else option.kind,
                    metavar=option.metavar,
                    help=option.help,
                )
            )
        else:
            made.append(
                click.option(
                    name, key, is_flag=True, flag_value=option.flag, default=None, help=option.help
                )
            )
    return made


def jobs_option(function: F) -> F:
    """Add the option ``--jobs`` to a command."""
    return click.option(
        "--jobs",
        type=click.IntRange(1, 1000),
        metavar="N",
        help="Do N runs of a run file at a time.  Each takes about two processors.  Default: 1, "
        "with a live view.",
    )(function)


def refuse_jobs(jobs: int | None) -> None:
    """Refuse ``--jobs`` for a single run.

    :raises UsageError: when it is given.
    """
    if jobs is not None:
        raise UsageError("--jobs works only with a run file; name one, such as runs.toml")


def refuse_beside_file(file: str) -> None:
    """Refuse options that describe one run beside a run file.

    :raises UsageError: when there is one.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in ("guest", "output", "as_json", "offline", "jobs"):
            raise UsageError(
                f"{parameter.opts[0]} cannot be used with a run file; put it into {file}"
            )


def spec_from(guest: str | None, default: str, **given: Any) -> RunSpec:
    """Return the run that the options describe, checked as a run file would be.

    :param default: the backend of the command.
    :param given: the options by their key in a run file; None if not given.  ``expect`` and
        ``send`` are the dialogue.
    :raises UsageError: when a value is malformed, or two options do not go together.
    """
    # It imports the models and the guests, which --help can do without.
    from cosim.run import request

    spellings = {key: one.spelling for key, one in all_options(BACKENDS).items() if one.spelling}
    names = CommandLine(spellings)
    fields: dict[str, Any] = {}
    talk = dialogue_options.steps(given.pop("expect", ()), given.pop("send", ()))
    for key, value in {"guest": guest, "console": talk, **given}.items():
        if value is None or value == () or value == []:
            continue
        try:
            fields[key] = request.check(key, value, Path(), BACKENDS)
        except ValueError as error:
            raise UsageError(f"{names.option(key)} {error}") from None
        except GuestImageError:
            # It names the file and its role.
            raise
        except UsageError as error:
            raise UsageError(f"{names.option(key)}: {error}") from None
    machine = fields.pop("machine", None)
    spec = request.make_spec(
        guest or "run",
        fields,
        default=default,
        backends=BACKENDS,
        names=names,
        machine=machine,
    )
    if not isinstance(spec, RunSpec):
        raise UsageError(f"{names.option(spec.key)} {spec.text}")
    return spec
