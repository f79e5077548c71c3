"""Guests that wait (``wfi``) in a page with a breakpoint, and that end right behind an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


def _capture(name: str, backend: str, folder: Path) -> dict[str, Any]:
    kernel = bare_kernel.build(name, folder, bare_kernel.M_MODE)
    command: list[str | Path] = [
        "capture",
        "--kernel",
        kernel,
        "--bios",
        "none",
        "--memory",
        "128M",
    ]
    command += ["--backend", backend, "--from", "boot", "--json", "-o", folder / "trace"]
    ended = run(command, Home(folder / "home").environment())
    assert ended.status == 0, ended.stderr
    document: dict[str, Any] = ended.document
    assert document["complete"]
    return document


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_the_fence_behind_a_wait_is_seen(backend: str, tmp_path: Path) -> None:
    document = _capture("waits", backend, tmp_path)
    assert document["events"]["fence"] == {"va": 0, "va_asid": 0, "asid": 0, "all": 1}
