"""The paper's micro-benchmark as a stream, against what section 1 of the definitions expects.

1,024 pages, 100,000 operations; each is an access to a page, or a modification of its entry and
the fence of that page.  The share p of modifications is spread at random.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from hypervisor_model import policies
from hypervisor_model.events import EVENT, EventBatch, Fence, Kind
from hypervisor_model.policies import MachineModel
from tests.hypervisor_model.guests import PAGE, Guest, W

PAGES = 1024
OPERATIONS = 100_000
MACHINE = MachineModel(ram_size=64 << 20)


def warmed_up() -> tuple[EventBatch, list[int], list[int], list[int]]:
    """Every page mapped and touched; addresses, PAs of the entries, and the entries."""
    guest = Guest()
    root = guest.page()
    addresses = [0x4000_0000 + PAGE * i for i in range(PAGES)]
    guest.load(root, 1)
    where = [guest.map(root, va, guest.page()) for va in addresses]
    guest.fence()
    for va in addresses:
        guest.access(va)
    return guest.take(), addresses, where, [guest.words[pa] for pa in where]


def operations(share: float, seed: int) -> tuple[EventBatch, EventBatch]:
    """The warm-up and the operations; exactly ``share`` of these are modifications."""
    warm, *columns = warmed_up()
    addresses, where, entries = (np.array(column) for column in columns)
    random = np.random.default_rng(seed)
    modifies = np.arange(OPERATIONS) < round(share * OPERATIONS)
    random.shuffle(modifies)
    page = random.integers(0, PAGES, OPERATIONS)
    first = np.cumsum(1 + modifies) - (1 + modifies)
    batch = np.zeros(OPERATIONS + int(modifies.sum()), EVENT)
    batch["icount"], batch["priv"] = -1, 1

    write, modified = first[modifies], page[modifies]
    # Each modification flips W: the n-th of a page finds it flipped n times.
    order = np.argsort(modified, kind="stable")
    starts = np.searchsorted(modified[order], np.arange(PAGES))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - starts[modified[order]]
    old = entries[modified] ^ np.where(turn % 2, W, 0)
    batch["kind"][write], batch["size"][write] = Kind.PTE_WRITE, 8
    batch["a"][write], batch["b"][write], batch["c"][write] = where[modified], old, old ^ W
    batch["kind"][write + 1], batch["sub"][write + 1] = Kind.FENCE, Fence.VA
    batch["a"][write + 1] = addresses[modified]

    access, accessed = first[~modifies], page[~modifies]
    batch["kind"][access] = Kind.ACCESS
    batch["a"][access] = addresses[accessed]
    batch["b"][access] = entries[accessed] >> 10 << 12
    return warm, batch


def exits(spec: str, warm: EventBatch, batch: EventBatch) -> int:
    policy = policies.make(spec, MACHINE)
    policy.feed(warm)
    before = policy.result().total
    answers = policy.feed(batch)
    after = policy.result().total
    assert before is not None and after is not None
    is_access = batch["kind"] == Kind.ACCESS
    assert (answers == np.where(is_access, batch["b"], 0)).all()
    return after - before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_exits_over_the_share_of_modifications(share: float) -> None:
    warm, batch = operations(share, seed=round(share * 10))
    modifications = round(share * OPERATIONS)
    assert exits("shadow", warm, batch) == 2 * modifications
    # An operation that is not its page's first is a fill with probability p(1-p): it accesses, and
    # the one before modified.  Allowed are 5 sigma of that binomial count.
    fills = exits("lsp", warm, batch) - modifications
    chance = share * (1 - share)
    expected = (OPERATIONS - PAGES) * chance
    assert abs(fills - expected) <= 5 * math.sqrt(expected * (1 - chance))
    assert exits("ssp", warm, batch) == modifications
    assert exits("vtlb", warm, batch) == modifications + fills
    for none in ("native", "nested"):
        assert exits(none, warm, batch) == 0


def test_the_papers_figures_at_share_one() -> None:
    warm, batch = operations(1.0, seed=1)
    assert exits("shadow", warm, batch) == 200_000
    assert exits("lsp", warm, batch) == 100_000
