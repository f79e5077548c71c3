"""Docstrings have one style."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cosim import paths

PACKAGES = ("cosim", "guest", "hypervisor_model")
PROGRAM = "python_script.py"
"""Runs inside a guest.  A change of it makes the guest anew."""
MODULES = sorted(
    file
    for name in PACKAGES
    for file in (paths.SOURCE / name).rglob("*.py")
    if file.name != PROGRAM
)
_RAISES = re.compile(r":raises \w+(, \w+)*: (when \S|always\.)")
_OTHER_STYLES = re.compile(
    r"^\s*(Args|Arguments|Parameters|Raises|Returns|Yields):?\s*$|:rtype|:returns:|:raise |:arg ",
    re.MULTILINE,
)
_FRAGMENT = re.compile(r"(Whether|What|Which|Who|Where|If|How|The|An?|All|Each)\b")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Documented(NamedTuple):
    """A function or class with a docstring."""

    place: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    text: str
    public: bool


def _documented(file: Path) -> Iterator[Documented]:
    def inside(node: ast.AST, public: bool) -> Iterator[Documented]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (*_FUNCTIONS, ast.ClassDef)):
                continue
            seen = public and (not child.name.startswith("_") or child.name.startswith("__"))
            text = ast.get_docstring(child)
            if text:
                place = f"{file.relative_to(paths.SOURCE)}:{child.lineno} {child.name}"
                yield Documented(place, child, text, seen)
            if isinstance(child, ast.ClassDef):
                yield from inside(child, seen)

    yield from inside(ast.parse(file.read_text()), True)


ALL = [one for file in MODULES for one in _documented(file)]


def _is_property(node: ast.AST) -> bool:
    names = {ast.unparse(one) for one in getattr(node, "decorator_list", [])}
    return bool(names & {"property", "cached_property", "functools.cached_property"})


def _is_command(node: ast.AST) -> bool:
    """Return True if click shows the docstring as help."""
    return any("command(" in ast.unparse(one) for one in getattr(node, "decorator_list", []))


def test_there_are_docstrings_to_check() -> None:
    assert len(ALL) > 1000


def test_errors_are_documented_in_one_style() -> None:
    wrong = [
        f"{one.place}: {line.strip()}"
        for one in ALL
        for line in one.text.splitlines()
        if ":raise" in line and not _RAISES.match(line.strip())
    ]
    wrong += [one.place for one in ALL if _OTHER_STYLES.search(one.text)]
    assert not wrong, "\n".join(wrong)


def test_errors_that_a_public_function_raises_itself_are_documented() -> None:
    missing = []
    for one in ALL:
        if not one.public or not isinstance(one.node, _FUNCTIONS) or _is_command(one.node):
            continue
        said = {
            name
            for names in re.findall(r":raises ([\w, ]+):", one.text)
            for name in names.split(", ")
        }
        for error in _raised(one.node) - said:
            missing.append(f"{one.place} raises {error}")
    assert not missing, "\n".join(missing)


def _raised(function: ast.AST) -> set[str]:
    """Return the classes in ``raise`` statements of a function, without those of inner ones."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(function):
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            called = ast.unparse(node.exc.func)
            found |= {called} if called.isidentifier() and called[0].isupper() else set()
        found |= _raised(node)
    # For a broken rule of the code itself nobody is told what to do.
    return found - {"AssertionError"}


def test_parameters_that_are_documented_are_there() -> None:
    wrong = []
    for one in ALL:
        node = one.node
        if isinstance(node, ast.ClassDef):
            continue
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        every += [arg for arg in (node.args.vararg, node.args.kwarg) if arg]
        names = {arg.arg for arg in every}
        unknown = set(re.findall(r":param (\w+):", one.text)) - names
        wrong += [f"{one.place}: {name}" for name in unknown]
    assert not wrong, "\n".join(wrong)


def test_a_function_says_what_it_does() -> None:
    """A docstring such as "Whether it is there" is a fragment; a property may be a noun."""
    wrong = [
        f"{one.place}: {one.text.splitlines()[0]}"
        for one in ALL
        if isinstance(one.node, _FUNCTIONS)
        and not _is_property(one.node)
        and _FRAGMENT.match(one.text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (":raises UsageError: when it is empty.", True),
        (":raises UsageError: if it is empty.", False),
        (":raises UsageError, GdbError: when ``text`` is empty.", True),
        (":raises UsageError: on an empty text.", False),
        (":raise UsageError: when it is empty.", False),
    ],
)
def test_the_style_of_errors(text: str, good: bool) -> None:
    assert bool(_RAISES.match(text)) is good
