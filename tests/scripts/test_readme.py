"""What the README prints as commands and code is there, and does what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import click
import pytest

from cosim.cli import cosim

_README = (Path(__file__).parents[2] / "README.md").read_text()
_COMMANDS = sorted(
    {
        name
        for names in re.findall(r"^cosim ([a-z|]+)|; cosim ([a-z]+)", _README, re.MULTILINE)
        for name in "|".join(names).strip("|").split("|")
    }
)


def test_the_example_of_the_library_prints_what_it_says() -> None:
    [example] = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
    promised = example.rstrip().splitlines()[-1].removeprefix("# ")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "README.md", "exec"), {})
    assert printed.getvalue().strip() == promised


def test_commands_are_found_in_the_readme() -> None:
    assert {"doctor", "guest", "run", "capture", "replay", "walk", "report"} <= set(_COMMANDS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_each_command_is_there_with_an_example(name: str) -> None:
    context = click.Context(cosim)
    command = cosim.get_command(context, name)  # type: ignore[attr-defined]
    assert command is not None
    groups = getattr(command, "commands", None)
    for one in groups.values() if groups else [command]:
        text = one.get_help(click.Context(one, parent=context, info_name=one.name))
        assert "cosim " in text and "xample" in text, f"--help of {one.name} has no example"
