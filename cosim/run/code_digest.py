"""Which of the tool's own code a result depends on, as a digest that changes with it.

Found by following ``import`` statements, so that no list of files has to be kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from cosim import paths
from guest import spec as guests

_TOOL = ("cosim", "hypervisor_model")
"""The packages to follow.  Guests have their own checksums."""


@cache
def digest(begin: tuple[str, ...], without: tuple[str, ...]) -> str:
    """Return a digest of the code that ``begin`` uses.

    :param begin: modules, and packages with all that is in them.
    :param without: modules and packages whose code does not count, unless ``begin`` names it.
    """
    return guests.digest(sorted(files(begin, without)))


def files(begin: Iterable[str], without: Iterable[str]) -> set[Path]:
    """Return the source files that :func:`digest` is of; C files belong to their folder."""
    without = tuple(without)
    seen = {module for name in begin for module in _inside(name)}
    left = list(seen)
    found: set[Path] = set()
    while left:
        path = _file(left.pop())
        if path is None:
            continue
        found.add(path)
        found.update(one for one in path.parent.iterdir() if one.suffix in (".c", ".h"))
        reached = {name for name in _imports(path) if not _is_in(name, without)} - seen
        seen |= reached
        left += reached
    return found


def _is_in(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _inside(name: str) -> Iterator[str]:
    """Give ``name`` and, if it is a package, all modules in it."""
    yield name
    folder = paths.SOURCE.joinpath(*name.split("."))
    for path in folder.rglob("*.py"):
        inside = path.relative_to(folder).with_suffix("").parts
        yield ".".join((name, *inside)).removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    """Return the modules that ``path`` names in imports, at its top or in functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` and `from package.module import name` look alike.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _file(module: str) -> Path | None:
    """Return the file of a module of the tool, None for any other."""
    if module.partition(".")[0] not in _TOOL:
        return None
    path = paths.SOURCE.joinpath(*module.split("."))
    package = path / "__init__.py"
    if package.is_file():
        return package
    path = path.with_suffix(".py")
    return path if path.is_file() else None
