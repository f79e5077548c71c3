"""The ``paging`` commands: each is a click command over a :class:`~cosim.debug.debuggee.Debuggee`.

gdb sends the words that the user typed.  click parses them, as it does those of ``cosim`` itself,
and its help is the help inside gdb.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import click

from cosim.debug.commands import held, history, tables
from cosim.debug.commands.arguments import NUMBER
from cosim.debug.debuggee import Debuggee
from cosim.debug.link import Answer
from cosim.errors import UsageError

COMMANDS: dict[str, click.Command] = {
    **tables.COMMANDS,
    **history.COMMANDS,
    **held.COMMANDS,
}
"""Every command by its name."""


def answer(debuggee: Debuggee, words: Sequence[str]) -> Answer:
    """Return the answer to a question from gdb.

    :raises UsageError: when there is no such command, or its words are wrong.
    :raises CosimError: when it cannot be answered.
    """
    if not words:
        raise UsageError("no command")
    if words[0] == "commands":
        return Answer(value=[_description(name) for name in COMMANDS])
    if words[0] == "stopped":
        tables.note_stop(debuggee)
        return history.stopped(debuggee)
    command = COMMANDS.get(words[0])
    if command is None:
        raise UsageError(f"there is no command {words[0]!r}; type `help paging`")
    try:
        with command.make_context(f"paging {words[0]}", list(words[1:]), obj=debuggee) as context:
            found: Answer = command.invoke(context)
    except click.exceptions.Exit:
        return Answer(help_text(words[0]))
    except click.ClickException as error:
        said = error.format_message().removesuffix(".")
        raise UsageError(f"{said}; type `help paging {words[0]}`") from None
    return found


def help_text(name: str) -> str:
    """Return the help of a command, for a terminal."""
    command = COMMANDS[name]
    context = click.Context(command, info_name=f"paging {name}", terminal_width=78)
    return command.get_help(context)


def _description(name: str) -> dict[str, Any]:
    command = COMMANDS[name]
    words: list[str] = []
    literal: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            words += parameter.opts
            if not parameter.is_flag and parameter.type is not NUMBER:
                literal += parameter.opts
        elif parameter.type is not NUMBER:
            literal.append("")
        if isinstance(parameter.type, click.Choice):
            words += [str(choice) for choice in parameter.type.choices]
    # The first line is what `help paging` lists.
    first = inspect.cleandoc(command.help or "").partition("\n")[0]
    return {
        "name": name,
        "help": f"{first}\n{help_text(name)}",
        "words": words,
        "literal": literal,
    }
