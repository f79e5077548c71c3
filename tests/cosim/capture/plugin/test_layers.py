"""The plugin's C files have no cycle, neither in what they include nor in what they call."""

from __future__ import annotations

import re
import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cosim.capture.plugin
from cosim.capture.plugin import event_header
from cosim.machine import tools

SOURCE = Path(cosim.capture.plugin.__file__).parent
FILES = sorted(SOURCE.glob("*.c"))


def includes(text: str) -> set[str]:
    return set(re.findall(r'^#include "(\w+\.h)"', text, re.MULTILINE))


def cycle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The files whose functions or variables each file uses, by its object file."""
    folder = tmp_path_factory.mktemp("objects")
    (folder / event_header.NAME).write_text(event_header.header())
    compiler = [str(tools.host_compiler().path), "-std=gnu11", "-O0", "-c", f"-I{folder}"]
    owner: dict[str, str] = {}
    wanted: dict[str, list[str]] = {}
    for file in FILES:
        target = folder / f"{file.stem}.o"
        subprocess.run([*compiler, str(file), "-o", str(target)], check=True, timeout=60)
        listed = subprocess.run(
            ["nm", "-P", "-g", str(target)], check=True, capture_output=True, text=True, timeout=60
        )
        rows = [line.split() for line in listed.stdout.splitlines()]
        owner.update({name: file.stem for name, kind, *_ in rows if kind != "U"})
        wanted[file.stem] = [name for name, kind, *_ in rows if kind == "U"]
    return {
        stem: {owner[name] for name in names if name in owner} - {stem}
        for stem, names in wanted.items()
    }


def test_symbols_form_no_cycle(uses: dict[str, set[str]]) -> None:
    assert cycle(uses) == []
    # The test does find uses.
    assert {"tables", "hart", "region", "memory"} <= uses["plugin"] | uses["memory"]
    assert not any("plugin" in others for others in uses.values()), "plugin.c is the top"


def test_each_file_uses_only_those_above_it_in_the_documented_list(
    uses: dict[str, set[str]],
) -> None:
    listed = re.findall(r"^``(\w+)`` {2}", cosim.capture.plugin.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(uses)
    for place, stem in enumerate(listed):
        assert uses[stem] <= set(listed[:place]), stem


def test_includes_form_no_cycle(uses: dict[str, set[str]]) -> None:
    files = [*FILES, *SOURCE.glob("*.h")]
    graph = {file.name: includes(file.read_text()) for file in files}
    assert cycle(graph) == []
    for stem, others in uses.items():
        assert f"{stem}.h" in graph[f"{stem}.c"] or stem == "plugin"
        for other in others:
            assert f"{other}.h" in reachable(graph, f"{stem}.c"), f"{stem}.c uses {other}.c"


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        new = graph.get(left.pop(), set()) - found
        found |= new
        left.extend(new)
    return found


def test_a_cycle_would_be_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
