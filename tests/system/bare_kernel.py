"""Small kernels in assembly (``NAME.S``, with what the ``.inc`` files have), and their captures."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosim.machine import tools
from cosim.trace.reader import TraceReader
from hypervisor_model.events import Kind
from tests.system.cosim_process import Home, run

REGION = ("--from", "mark:begin", "--to", "mark:end")
_COMPARED = ("kind", "pc", "a", "b", "c", "sub", "hart", "priv", "flags", "size")


S_MODE, M_MODE = 0x8020_0000, 0x8000_0000
"""Where a kernel starts: behind OpenSBI, or without it (-bios none)."""


def build(name: str, folder: Path, start: int = S_MODE) -> Path:
    """The kernel ``name`` for the address ``start``, made in ``folder``."""
    output = folder / f"{name}.elf"
    here = Path(__file__).parent
    options = ["-nostdlib", "-static", f"-I{here}", f"-Wl,-N,--build-id=none,-Ttext={start:#x}"]
    words = [str(tools.cross_compiler().path), *options, str(here / f"{name}.S")]
    subprocess.run([*words, "-o", str(output)], check=True, timeout=60)
    return output


Event = dict[str, int]


@dataclass(frozen=True)
class Capture:
    """What one backend saw of a kernel's region, and the document that `cosim capture` printed.

    ``events`` are all but accesses, of which the backends see different ones, and the guest's page
    faults, which only the plugin sees.
    """

    events: list[Event]
    document: dict[str, Any]

    def of(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event["kind"] == kind]


def capture(kernel: Path, backend: str, folder: Path, *options: str) -> Capture:
    """Capture the region of ``kernel`` with ``folder``, which is made, for all that this needs."""
    home = Home(folder)
    words = ["capture", "--kernel", str(kernel), "--memory", "128M", "--backend", backend, *REGION]
    ended = run([*words, *options, "--json", "-o", folder / "trace"], home.environment())
    assert ended.status == 0, ended.stdout + ended.stderr
    kept = [
        {name: int(event[name]) for name in _COMPARED}
        for batch in TraceReader(folder / "trace").batches()
        for event in batch
        if event["kind"] not in (Kind.ACCESS, Kind.PAGE_FAULT)
    ]
    return Capture(kept, ended.document)
