"""Names of kernels and folders that are odd but legal: every command takes and shows them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import guest
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system

NAMES = [b"bad\xff.elf", b"-dash.elf", b"new\nline.elf", b"a b,c.elf", b"[red].elf"]


def _kernel(folder: Path, name: bytes) -> Path:
    path = folder / os.fsdecode(name)
    shutil.copy(guest.ensure("micro", lambda *_: None).kernel, path)
    return path


@pytest.mark.parametrize("backend", ["plugin", "gdb"])
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_of_this_name_runs(name: bytes, backend: str, tmp_path: Path) -> None:
    kernel = _kernel(tmp_path, name)
    words: list[str | Path] = [
        "run",
        "--kernel",
        kernel,
        "--append",
        "scenario=map",
        "--model",
        "native",
    ]
    environment = Home(tmp_path / "home").environment()
    ended = run([*words, "--backend", backend, "--json"], environment)
    assert ended.status == 0, ended.stderr
    assert ended.stdout.isascii()
    assert os.fsencode(ended.document["guest"]["name"]) == name
    assert os.fsencode(ended.document["guest"]["kernel"]) == os.fsencode(kernel)
    assert ended.document["events"]["pte_write"] > 0


@pytest.mark.parametrize("name", [b"trace\xff", b"tra\nce"])
def test_a_trace_in_a_folder_of_this_name(name: bytes, tmp_path: Path) -> None:
    environment = Home(tmp_path / "home").environment()
    kernel, trace = _kernel(tmp_path, NAMES[0]), tmp_path / os.fsdecode(name)
    words: list[str | Path] = [
        "--kernel",
        kernel,
        "--append",
        "scenario=map",
        "--backend",
        "plugin",
    ]
    ended = run(["capture", *words, "-o", trace, "--json"], environment)
    assert ended.status == 0, ended.stderr
    total = ended.document["events"]["total"]
    page = tmp_path / os.fsdecode(name + b".html")
    reads: list[tuple[list[str | Path], str]] = [
        (["trace", "info", trace], "complete"),
        (["trace", "head", trace], "fence"),
        (["trace", "verify", trace], ""),
        (["replay", trace, "--model", "native"], r"bad\xff.elf"),
        (["query", trace, "SELECT count(*) AS n FROM events"], str(total)),
        (["report", trace, "-o", page], r"bad\xff.elf"),
    ]
    for more, wanted in reads:
        ended = run(more, environment)
        assert ended.status == 0, ended.stderr
        assert wanted in ended.stdout
    ended = run(["query", trace, "SELECT count(*) AS n FROM events", "--json"], environment)
    assert json.loads(ended.stdout)["rows"] == [[total]]
    assert r"bad\xff.elf" in page.read_text()
