"""What M-mode does with the memory of others, as the plugin shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.kernel import symbols
from cosim.trace.reader import TraceReader
from hypervisor_model.events import Access, Kind, Priv
from hypervisor_model.jit import unsigned
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run

pytestmark = pytest.mark.system


@pytest.mark.parametrize("slots", [1, 64])
def test_guest_accesses_and_mprv_from_m_mode(slots: int, tmp_path: Path) -> None:
    kernel = bare_kernel.build("machine_mode", tmp_path, bare_kernel.M_MODE)
    at = symbols.load(kernel).address
    words = ["capture", "--kernel", str(kernel), "--bios", "none", "--memory", "128M"]
    words += ["--cpu", "rv64,svade=on,h=on", "--backend", "plugin"]
    words += [*bare_kernel.REGION, "--json", "-o", str(tmp_path / "trace")]
    words += ["--filter", str(slots)]
    ended = run(words, Home(tmp_path / "home").environment())
    assert ended.status == 0, ended.stdout + ended.stderr
    seen = [
        (
            *(unsigned(int(event[name])) for name in ("pc", "a", "b")),
            event["sub"],
            event["priv"],
        )
        for batch in TraceReader(tmp_path / "trace").batches()
        for event in batch
        if event["kind"] == Kind.ACCESS
    ]
    page = at("page")
    # hlv and hsv are accesses of VS-mode (hstatus.SPVP); with MPRV a load is one of S-mode.  M-mode
    # fetches are physical and therefore no accesses, with MPRV set or not.
    assert seen == [
        (at("hlv_at"), page, page, Access.READ, Priv.VIRT | Priv.S),
        (at("hsv_at"), page, page, Access.WRITE, Priv.VIRT | Priv.S),
        (at("mprv_at"), 0x5008, page + 8, Access.READ, Priv.S),
    ]
    events = ended.document["events"]
    assert events["virtual"]["access"] == 2 and events["access"] == 1
