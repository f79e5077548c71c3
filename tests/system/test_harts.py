"""Several harts: each event names the hart that caused it, and all events are in one order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cosim.capture import marks
from cosim.kernel import symbols
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing
from hypervisor_model.events import EventBatch, Fence, Kind, Priv, PteOp
from tests.system import bare_kernel
from tests.system.cosim_process import Home, run
from tests.system.test_plugin import capture

pytestmark = pytest.mark.system

ROUNDS, CALLS = 1024, 2
"""Rounds of each hart of ``harts.S``, and in how many of them it calls for remote fences."""
WINDOW = 64 << 30


def tally(events: EventBatch, *fields: str) -> Counter[tuple[int, ...]]:
    """How often each combination of the fields' values occurs."""
    return Counter(zip(*(events[field].tolist() for field in fields), strict=True))


@pytest.mark.parametrize("harts", [2, 4])
def test_each_event_has_its_hart_and_its_place(harts: int, tmp_path: Path) -> None:
    kernel = bare_kernel.build("harts", tmp_path)
    known = symbols.load(kernel)
    config = MachineConfig(
        kernel=kernel, memory=128 << 20, cpu=tools.default_cpu(tools.qemu()), harts=harts
    )
    run = capture(
        config,
        tmp_path,
        Timing("live"),
        mark=known.address(marks.SYMBOL),
        mark_in_user=False,
        start="mark:begin",
        end="mark:end",
        accesses="all",
    )
    assert run.summary.region_ended and run.summary.missed == 0
    assert (np.diff(run.events["icount"]) >= 0).all()

    # What the firmware executes for the guest is not the guest's.
    (booted,) = run.of(Kind.MARK)["hart"]
    fences = run.of(Kind.FENCE)
    assert set(fences["priv"].tolist()) == {Priv.S}
    every = {(hart, Fence.VA_ASID, hart + 1): ROUNDS for hart in range(harts)}
    every |= {(hart, Fence.ALL, 0): ROUNDS + (hart != booted) for hart in range(harts)}
    assert tally(fences, "hart", "sub", "b") == every
    of_satp = {(hart,): ROUNDS * 3 // 2 + (hart != booted) for hart in range(harts)}
    written = run.of(Kind.SATP_WRITE)
    # The firmware clears it where it starts a hart.
    own_writes = (written["flags"] == 0) & (written["priv"] == Priv.S)
    assert tally(written[own_writes], "hart") == of_satp

    own, stores = known.address("own"), run.of(Kind.PTE_WRITE)
    for hart in range(harts):
        mine = stores[stores["hart"] == hart]
        leaves = (np.arange(ROUNDS) << 10 | 0xCF).tolist()
        for entry, op in ((0, PteOp.STORE), (1, PteOp.SC)):
            place = own + 4096 * hart + 8 * entry
            assert mine[(mine["a"] == place) & (mine["sub"] == op)]["c"].tolist() == leaves
    # All harts add to one entry: only one order of the events explains the values.
    shared = stores[stores["a"] == own + 8 * 511]
    assert set(shared["sub"].tolist()) == {PteOp.AMO}
    assert shared["b"].tolist() == [1024 * i for i in range(harts * ROUNDS)]
    assert shared["c"].tolist() == [1024 * (i + 1) for i in range(harts * ROUNDS)]

    called: dict[tuple[int, ...], int] = {}
    for hart in range(harts):
        place, following = WINDOW + (hart << 30), 1 << (hart + 1) % harts
        called |= {
            (hart, Fence.ALL, (1 << harts) - 1, 0, 0, 0): 2 * CALLS,
            (hart, Fence.VA, following, place, 0, 8192): CALLS,
            (hart, Fence.VA_ASID, 1, place, hart + 1, 8192): CALLS,
        }
    remote = run.of(Kind.REMOTE_FENCE)
    named = remote["harts"] != 0
    assert tally(remote[named], "hart", "sub", "harts", "a", "b", "c") == called
    # The calls for a hart that is not there: OpenSBI 1.1 refuses them, and 1.6 accepts them.
    assert set(tally(remote[~named], "hart").values()) <= {CALLS}
    assert set(remote["priv"].tolist()) == {Priv.S}


def test_programs_that_move_between_harts(tmp_path: Path) -> None:
    # The shell has run on both harts when it forks, so that both must be fenced.
    move = "taskset -p 1 $$; taskset -p 2 $$"
    workload = f"{move}; for i in 1 2 3; do /bin/paging-workload & done; wait"
    words = ["run", "linux", "--smp", "2", "--model", "nested,shadow,lsp", "--json"]
    ended = run([*words, "--workload", workload], Home(tmp_path / "home", "linux").environment())
    assert ended.status == 0 and ended.stderr == ""
    document = ended.document
    assert (document["backend"], document["machine"]["harts"]) == ("plugin", 2)
    assert document["guest"]["repeats"] is False
    assert document["audit"]["missed_writes"] == 0
    calls = document["events"]["remote_fence"]
    assert calls > 0 and document["events"]["pte_write"] > 2_000
    for name in ("nested", "shadow", "lsp"):
        assert document["policies"][name]["exits"]["remote_fence"] == calls
    for counts in document["translations"].values():
        assert counts["compared"] > 50_000 and counts["illegal"] == 0
