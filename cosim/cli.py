"""The ``cosim`` command: each sub-command is a module of :mod:`cosim.commands`, imported on use."""

from __future__ import annotations

import gc
import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.shell_completion import CompletionItem

from cosim import output
from cosim.errors import CosimError, outside_fault
from cosim.machine import interrupts
from cosim.output import note, note_lines

_COMMANDS: dict[str, str] = {
    "run": "Boot a guest, intercept its paging, feed the models, compare.",
    "capture": "Record a guest's paging events as a trace.",
    "snapshot": "Save a booted guest in a file, from which runs can start.",
    "check": "Find the stores to page tables whose fence is missing, late or too narrow.",
    "debug": "Debug a guest's paging in gdb, forward and back.",
    "doctor": "Check what is installed, and say how to get what is missing.",
    "guest": "List, fetch and build the guests that the tool makes.",
    "trace": "Show what a trace holds, print its first events, check it.",
    "replay": "Run the models over a trace.",
    "sweep": "Run many models, machines and cost tables over many traces, on many workers.",
    "reproduce": "Run the experiments of the LSP paper on real guests.",
    "report": "Make one HTML page of a run, a trace or the paper's figures.",
    "top": "Show what causes the exits and TLB misses: functions, call sites, address spaces.",
    "export": "Write a trace as a file for Perfetto.",
    "query": "Run SQL over a trace.",
    "walk": "Translate addresses by the page tables in a dump or trace, level by level.",
    "maps": "Show what the page tables in a dump or trace map.",
    "find": "Show where the page tables in a dump or trace map a physical address.",
}
"""The name of each sub-command and one line about it, in the order of --help."""

_OBJECTS = 50_000
"""New objects after which Python looks for cycles among them."""


class _Ended(BaseException):
    """Carries ``error`` past click, which would handle it in its own way."""

    def __init__(self, error: KeyboardInterrupt | BrokenPipeError) -> None:
        self.error = error


@contextmanager
def _past_click() -> Iterator[None]:
    # Click prints a blank line for Ctrl-C, and exits with 1, a finding, for a broken pipe.
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError) as error:
        raise _Ended(error) from None


class _Lazy(click.Group):
    """A group that imports ``cosim.commands.NAME`` (its ``command``) when NAME is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"cosim.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # As for --help: a shell must not wait until every command is imported.
        names = [
            CompletionItem(name, help=text)
            for name, text in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with _past_click():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _past_click():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The short texts are in this module, so that --help need not import every command.
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lsp-cosim")
def cosim() -> None:
    """Co-simulate memory virtualization policies on real RISC-V guests.

    Exit status: 0 fine, 1 a finding (a divergence, a missed write, a missing fence), 2 usage, 3 the
    environment (QEMU missing, guest died), 130 interrupted.

    Example: cosim run linux
    """


def main(argv: list[str] | None = None) -> None:
    """Run the command line; for an error, print one line and exit with its status.

    :param argv: the words after ``cosim``; None takes those of this process.
    """
    # Modules make many objects that stay, and Python would search them for cycles again and again.
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
    interrupts.install()
    output.start()
    status = _status(argv)
    try:
        output.finish()
    except CosimError as error:
        # A result that nobody got is not fine, and no finding either.
        if status <= 1:
            output.note(f"cosim: {error}")
            status = error.exit_status
    sys.exit(status)


def _status(argv: list[str] | None) -> int:
    """Run the command line, print the line of an error, return the exit status."""
    try:
        status = _invoke(argv)
    except CosimError as error:
        where = f" (log: {error.log})" if error.log else ""
        note(f"cosim: {error}{where}")
        return error.exit_status
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        see = f" (see {context.command_path} --help)" if context else ""
        note(f"cosim: {error.format_message().removesuffix('.')}{see}")
        return 2
    except (click.Abort, KeyboardInterrupt):
        interrupts.over()
        note("cosim: interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`cosim --help | head`), which is no error.
        return 0
    except (OSError, MemoryError) as error:
        fault = outside_fault(error)
        note(f"cosim: {fault}")
        return fault.exit_status
    except Exception:
        # Not status 1, because that is a finding.
        bug = "cosim: this is a bug in cosim; please report these lines"
        note_lines(f"{traceback.format_exc()}{bug}")
        return 3
    return status if isinstance(status, int) else 0


def _invoke(argv: list[str] | None) -> Any:
    try:
        return cosim.main(args=argv, prog_name="cosim", standalone_mode=False)
    except _Ended as ended:
        raise ended.error from None
