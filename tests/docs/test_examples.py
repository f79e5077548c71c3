"""What the documentation prints as commands, code and names of files is there and works."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cosim.cli import cosim
from cosim.debug.commands import COMMANDS
from cosim.paths import SOURCE
from tests.cosim.streams import arbitrary_batch, write_trace
from tests.cosim.sweep.made_rows import folder_of, made

_DOCUMENTS = sorted(
    file
    for file in [*SOURCE.glob("*.md"), *(SOURCE / "docs").glob("*.md")]
    # It may name what has gone since.
    if file.stem != "CHANGES"
)
_TOP = click.Context(cosim, info_name="cosim")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_QUICK = ("doctor", "guest list", "guest workloads", "trace", "query")
"""Commands that are run, as nothing is booted or built by them."""
_NEEDS_SERVER = "s3://"
"""What has this in it is not run."""


def _blocks(text: str, *languages: str) -> list[str]:
    return [block for language, block in _FENCE.findall(text) if language in languages]


_PYTHON = [
    pytest.param(file, block, id=f"{file.stem}-{number}")
    for file in _DOCUMENTS
    for number, block in enumerate(_blocks(file.read_text(), "python"))
]


@cache
def _lines() -> list[tuple[str, str]]:
    """Each example of the command line: where it stands, and the text from `cosim` on."""
    found = []
    for file in _DOCUMENTS:
        for block in _blocks(file.read_text(), "", "sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("cosim "):
                    found.append((file.name, line))
    for name, command in _commands().items():
        text = "\n".join([command.help or "", command.epilog or ""])
        for line in text.splitlines():
            example = re.match(r"\s*(?:Example: )?(cosim .*)", line)
            if example:
                found.append((f"{name} --help", example[1]))
    return found


@cache
def _commands() -> dict[str, click.Command]:
    """Every command without sub-commands, by its name as it is typed."""

    def walk(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                one = command.get_command(context, name)
                assert one is not None
                yield from walk(one, click.Context(one, parent=context, info_name=name))
        else:
            yield context.command_path, command

    return {path.removeprefix("cosim "): command for path, command in walk(cosim, _TOP)}


def _split(line: str) -> list[str]:
    """The words of the first command of ``line``, as a shell would give them to it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;<>&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word[0] in "|;<>&":
            break
        words.append(word)
    return words[1:]


def _is_a_summary(line: str) -> bool:
    """Return True if ``line`` is one of the README's list, which has words behind the command."""
    return re.search(r"\S  +[^#\s]", line) is not None or "..." in line


_EXAMPLES = [(where, line) for where, line in _lines() if not _is_a_summary(line)]
_SUMMARIES = [line for _, line in _lines() if _is_a_summary(line)]


@pytest.fixture
def with_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a trace in `DIR` and `t`, as documents and help texts call it.

    A sweep is in `tlbs`.
    """
    folder_of(tmp_path / "tlbs", list(made()))
    for name in ("DIR", "t"):
        write_trace(tmp_path / name, arbitrary_batch(200, seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file, block", _PYTHON)
def test_python_examples_run(file: Path, block: str, with_a_trace: Path) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, file.name, "exec"), {"__name__": "example"})
    last = block.rstrip().splitlines()[-1]
    if last.startswith("# "):
        assert printed.getvalue().strip() == last.removeprefix("# ")


def test_the_examples_are_found() -> None:
    assert len(_EXAMPLES) > 30
    assert {name.split()[0] for name in _commands()} == {line.split()[1] for _, line in _EXAMPLES}
    assert len(_PYTHON) >= 4


@pytest.mark.parametrize("where, line", _EXAMPLES)
def test_a_command_that_is_shown_takes_its_options(where: str, line: str) -> None:
    words = _split(line)
    if words == ["--version"]:
        return
    # Parses everything, and runs nothing.
    context = cosim.make_context("cosim", list(words), parent=None)
    rest = [*context._protected_args, *context.args]
    command: click.Command = cosim
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None and found is not None
        command = found
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]


@pytest.mark.parametrize("line", _SUMMARIES)
def test_a_command_that_is_listed_is_there(line: str) -> None:
    _, names, *more = line.split()
    for name in names.split("|"):
        found = cosim.get_command(_TOP, name)
        assert found is not None, name
        if isinstance(found, click.Group) and more:
            for inner in more[0].split("|"):
                assert inner in found.commands, f"{name} {inner}"
    known = {opt for path, one in _commands().items() for p in one.params for opt in p.opts}
    assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= known


@pytest.mark.parametrize("name", _commands())
def test_each_help_has_an_example(name: str) -> None:
    command = _commands()[name]
    text = command.get_help(click.Context(command, parent=_TOP, info_name=name))
    assert f"cosim {name}" in text and "xample" in text


@pytest.mark.parametrize(
    "line",
    sorted(
        {
            line
            for _, line in _EXAMPLES
            if line.removeprefix("cosim ").startswith(_QUICK) and _NEEDS_SERVER not in line
        }
    ),
)
def test_a_quick_command_runs(line: str, with_a_trace: Path) -> None:
    answer = CliRunner().invoke(cosim, _split(line), standalone_mode=False)
    assert answer.exception is None, line


@pytest.mark.parametrize("file", _DOCUMENTS, ids=lambda file: file.name)
def test_options_in_the_text_are_there(file: Path) -> None:
    known = {opt for one in _commands().values() for p in one.params for opt in p.opts}
    # Those inside gdb, too.
    known |= {opt for one in COMMANDS.values() for p in one.params for opt in p.opts}
    known |= {"--help", "--version"}
    prose = _FENCE.sub("", file.read_text())
    for span in re.findall(r"`([^`]+)`", prose):
        words = span.split()
        if words[0] == "paging" and len(words) > 1:
            assert words[1] in COMMANDS or not words[1].islower(), span
        if words[0] == "cosim" and len(words) > 1 and words[1].isalpha():
            assert cosim.get_command(_TOP, words[1]) is not None, span
        if words[0] == "cosim" or words[0].startswith("--"):
            for option in re.findall(r"(?<!\S)--[a-z][\w-]*", span):
                assert option in known or option in _ELSEWHERE, span


_ELSEWHERE = {"--tests", "--docs", "--build-id"}
"""Options of scripts and of other programs, named in the text."""

_FILE = re.compile(
    r"[\w.*-]+(/[\w.*-]+)*\.(py|c|h|S|ld|md|toml|sh|txt|css|j2)|([\w.*-]+/)+[\w.*-]*"
)


@pytest.mark.parametrize("file", _DOCUMENTS, ids=lambda file: file.name)
def test_files_that_are_named_are_there(file: Path) -> None:
    prose = _FENCE.sub("", file.read_text())
    named = [span.partition("::")[0] for span in re.findall(r"`([^`\s]+)`", prose)]
    missing = [name for name in named if _FILE.fullmatch(name) and not _exists(name)]
    assert not missing


_MADE = ("paper", "results", "man", "dist", "docs/_build")
"""Where commands that are shown put files."""


def _exists(name: str) -> bool:
    if "NAME" in name or name.startswith(tuple(f"{folder}/" for folder in _MADE)):
        return True
    if "/" not in name:
        roots = ("cosim", "hypervisor_model", "guest", "docs", "scripts", "tests")
        return any(SOURCE.glob(name)) or any(any((SOURCE / root).rglob(name)) for root in roots)
    return any(any((SOURCE / root).glob(name.rstrip("/"))) for root in ("", "cosim"))


def _tree() -> set[str]:
    """The files and folders in the tree at the top of docs/architecture.md."""
    text = (SOURCE / "docs" / "architecture.md").read_text()
    found: set[str] = set()
    folders = [""]
    for line in _blocks(text, "")[0].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not all(re.fullmatch(r"\w+(/|\.py)", name) for name in names):
            names = [name for name in line.split() if re.fullmatch(r"\w+(/|\.py)", name)]
        del folders[depth + 1 :]
        found |= {folders[depth] + name for name in names}
        folders.append(folders[depth] + names[-1])
    return found


def test_the_tree_of_the_architecture_is_there() -> None:
    assert [name for name in _tree() if not (SOURCE / name).exists()] == []


def test_every_package_is_in_the_tree_of_the_architecture() -> None:
    packages = {
        f"{file.parent.relative_to(SOURCE)}/"
        for top in ("cosim", "hypervisor_model")
        for file in (SOURCE / top).rglob("__init__.py")
    }
    modules = {
        str(file.relative_to(SOURCE))
        for top in ("cosim", "hypervisor_model")
        for file in (SOURCE / top).glob("*.py")
        if file.name != "__init__.py"
    }
    assert not (packages | modules) - _tree()
