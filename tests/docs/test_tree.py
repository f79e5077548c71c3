"""Modules have names that tell them apart, and the tests mirror the tree."""

from __future__ import annotations

from collections import Counter

from cosim import paths

PACKAGES = ("cosim", "guest", "hypervisor_model")
MODULES = sorted(file for name in PACKAGES for file in (paths.SOURCE / name).rglob("*.py"))

_MAY_SHARE = {"errors": 2, "packages": 2, "recipe": 4}
"""The root of the error tree and our part of it; the parts of each guest's recipe."""


def test_modules_have_names_of_their_own() -> None:
    """Two modules of one name are confused in imports, in an editor's tabs and in messages."""
    # A sub-command is called as what it calls, and a backend as users call it.
    commands = {file for file in MODULES if file.parent.name == "commands"}
    backends = {file for file in MODULES if file.parent.name == "backends"}
    names = Counter(file.stem for file in MODULES if file not in commands | backends)
    del names["__init__"]
    shared = {name: n for name, n in names.items() if n > _MAY_SHARE.get(name, 1)}
    assert not shared
    # A plural beside its singular is as easily confused.
    plurals = [
        f"{file.parent.relative_to(paths.SOURCE)}/{file.stem}(s)"
        for file in MODULES
        if (file.parent / f"{file.stem}s.py").exists() or (file.parent / f"{file.stem}s").is_dir()
    ]
    assert not plurals


def test_tests_mirror_the_tree() -> None:
    tests = paths.SOURCE / "tests"
    folders = {
        file.parent.relative_to(tests)
        for name in PACKAGES
        for file in (tests / name).rglob("test_*.py")
    }
    packages = {file.parent.relative_to(paths.SOURCE) for file in MODULES}
    assert folders <= packages
