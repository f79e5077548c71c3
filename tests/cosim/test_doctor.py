"""cosim doctor, with everything there and with nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_COSIM = [sys.executable, "-c", "from cosim.cli import main; main()", "doctor"]


def _doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_COSIM, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_on_a_path_without_tools(tmp_path: Path) -> None:
    answer = _doctor("--json", PATH=str(tmp_path), COSIM_CACHE=str(tmp_path / "cache"))
    assert answer.returncode == 3
    document = json.loads(answer.stdout)
    assert document["ok"] is False
    parts = {part["name"]: part for part in document["parts"]}
    for name in ("QEMU", "gdb", "cross compiler", "C compiler", "guest linux", "guest micro"):
        assert parts[name]["status"] == "missing", name
        assert parts[name]["costs"] and parts[name]["get"], name
    # Of util-linux, which every Debian has; the PATH does not matter for it.
    assert parts["setpriv"]["status"] == "ok" and parts["setpriv"]["required"]
    assert parts["QEMU"]["required"] and parts["gdb"]["required"]
    assert parts["cache folder"]["status"] == "ok"
    assert not (tmp_path / "cache").exists(), "looking makes nothing"


def test_the_table_says_what_to_do(tmp_path: Path) -> None:
    answer = _doctor(PATH=str(tmp_path), COSIM_CACHE=str(tmp_path))
    assert answer.returncode == 3
    assert "scripts/setup (gdb-multiarch)" in answer.stdout
    assert "cosim guest fetch linux" in answer.stdout
    table = [line for line in answer.stdout.splitlines() if line[:1] in "┏┡└│"]
    assert table and max(map(len, table)) <= 100


def test_a_narrow_table_cuts_no_path(tmp_path: Path) -> None:
    cache = tmp_path / "a-folder-with-a-long-name" / ("deep" * 12)
    answer = _doctor(COSIM_CACHE=str(cache), COLUMNS="60")
    assert "\N{HORIZONTAL ELLIPSIS}" not in answer.stdout
    column = [row.split("\N{BOX DRAWINGS LIGHT VERTICAL}")[-2] for row in _rows(answer.stdout)]
    assert str(cache) in "".join(part.strip() for part in column)


def _rows(table: str) -> list[str]:
    return [row for row in table.splitlines() if row.startswith("\N{BOX DRAWINGS LIGHT VERTICAL}")]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    answer = _doctor("--json", COSIM_CACHE=str(blocked / "cache"))
    parts = {part["name"]: part for part in json.loads(answer.stdout)["parts"]}
    assert parts["cache folder"]["status"] == "missing"
    assert answer.returncode == 3


@pytest.mark.system
def test_with_everything_there() -> None:
    answer = _doctor("--json")
    assert answer.returncode == 0, answer.stdout
    parts = {part["name"]: part for part in json.loads(answer.stdout)["parts"]}
    assert parts["QEMU"]["status"] == "ok"
    assert parts["QEMU"]["version"].split(".")[0].isdigit()
    assert Path(parts["OpenSBI"]["path"]).is_file()
