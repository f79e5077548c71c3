"""What causes exits and misses, against plain sums over single events."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.models import attribution
from cosim.models.address_spaces import space_name
from cosim.models.attribution import USER, Causes, Kept
from hypervisor_model.events import Access, EventBatch, Kind, Priv, Satp, empty
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import signed, unsigned

NAMES = ("shadow", "lsp")
KEPT = Kept({"shadow": 0, "lsp": 1}, {"shadow": 2, "lsp": 3})
KERNEL = 0xFFFF_FFFF_8000_0000
SATPS = [signed(make(Mode.SV39, 0x8000_1000 + (n << 12), n)) for n in range(3)]


def events(seed: int, count: int) -> tuple[EventBatch, np.ndarray]:
    """Events in some address spaces, and counts at a third of them."""
    random = np.random.default_rng(seed)
    batch = empty(count)
    batch["kind"] = random.choice([Kind.ACCESS, Kind.FENCE, Kind.SATP_WRITE], count)
    batch["sub"] = random.integers(0, 3, count)
    batch["sub"][batch["kind"] == Kind.SATP_WRITE] = Satp.SATP
    batch["b"] = random.choice(SATPS, count)
    batch["pc"] = signed(KERNEL) + 4 * random.integers(0, 100, count)
    batch["priv"] = random.choice([Priv.U, Priv.S, Priv.M], count)
    taken = random.integers(0, 3, (4, count)) * (random.integers(0, 3, (4, count)) == 0)
    return batch, taken


def lookup(address: int) -> str:
    """Functions of 16 instructions."""
    offset = address - KERNEL
    return f"f{offset // 64}" + (f"+0x{offset % 64:x}" if offset % 64 else "")


def document(batch: EventBatch, taken: np.ndarray, cuts: list[int], **options: Any) -> Any:
    made, at = Causes(4), 0
    for piece in np.split(batch, sorted(cuts)):
        counts = taken[:, at : at + len(piece)]
        where = np.flatnonzero(counts.any(axis=0))
        made.feed(piece, counts[:, where], where)
        at += len(piece)
    assert made.totals().tolist() == taken.sum(axis=1).tolist()
    return made.document(KEPT, lookup, **options)


def expected(batch: EventBatch, taken: np.ndarray) -> dict[str, Counter[Any]]:
    """The counts by function, site, space and stack, with the column as the last part of keys."""
    found: dict[str, Counter[Any]] = {
        name: Counter() for name in ("functions", "sites", "spaces", "stacks")
    }
    satp = 0
    for event, counts in zip(batch, taken.T.tolist(), strict=True):
        user = event["priv"] == Priv.U
        site = USER if user else lookup(unsigned(int(event["pc"])))
        kind = Kind(event["kind"]).name.lower()
        if kind == "access":
            kind = Access(event["sub"]).name.lower()
        function, space = site.split("+")[0], space_name(satp)
        for column, count in enumerate(counts):
            found["functions"][function, column] += count
            found["sites"][site, kind, column] += count
            found["spaces"][space, column] += count
            found["stacks"][space, function, kind, column] += count
        if event["kind"] == Kind.SATP_WRITE:
            satp = unsigned(int(event["b"]))
    return {name: +counts for name, counts in found.items()}


def counted(rows: list[Any], keys: tuple[str, ...]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for row in rows:
        key = tuple(row[name] for name in keys)
        for place, what in enumerate(("exits", "misses")):
            for name, count in row[what].items():
                found[(*key, 2 * place + NAMES.index(name))] += count
    return +found


KEYS = {
    "functions": ("function",),
    "sites": ("site", "event"),
    "spaces": ("space",),
    "stacks": ("space", "function", "event"),
}


@given(
    st.integers(0, 10_000),
    st.integers(0, 200),
    st.lists(st.integers(0, 200), max_size=4),
    st.sampled_from([0, 1 << 16]),
)
def test_every_count_has_its_cause(seed: int, count: int, cuts: list[int], pending: int) -> None:
    batch, taken = events(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "_PENDING", pending)
        patch.setattr(attribution, "STACKS", 10_000)
        made = document(batch, taken, cuts, rows=10_000)
    wanted = expected(batch, taken)
    for group, rows in made.items():
        assert counted(rows, KEYS[group]) == wanted[group], group


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_rest_is_added_up(seed: int, most: int) -> None:
    batch, taken = events(seed, 200)
    made = document(batch, taken, [], rows=most)
    whole = document(batch, taken, [], rows=10_000)
    for group in ("functions", "sites", "spaces"):
        rows = made[group]
        assert rows[:most] == whole[group][:most]
        assert len(rows) <= most + 1
        if len(whole[group]) > most:
            assert rows[-1][KEYS[group][0]] is None
        for column, name in enumerate(NAMES):
            assert sum(row["exits"][name] for row in rows) == taken[column].sum()
            assert sum(row["misses"][name] for row in rows) == taken[2 + column].sum()


def test_rows_are_ordered_by_their_largest_share() -> None:
    """A policy with few counts has its causes among the first, too."""
    batch = empty(3)
    batch["kind"] = Kind.FENCE
    batch["priv"] = Priv.S
    batch["pc"] = signed(KERNEL) + 64 * np.arange(3)
    taken = np.array([[500, 490, 0], [0, 1, 9], [0, 0, 0], [0, 0, 0]])
    made = document(batch, taken, [])
    assert [row["function"] for row in made["functions"]] == ["f2", "f0", "f1"]
    only = Kept({"shadow": 0}, {})
    single = Causes(4)
    single.feed(batch, taken, np.arange(3))
    rows = single.document(only, lookup)["functions"]
    assert [(row["function"], row["exits"], row["misses"]) for row in rows] == [
        ("f0", {"shadow": 500}, {}),
        ("f1", {"shadow": 490}, {}),
    ]


def test_without_symbols_sites_are_addresses() -> None:
    batch = empty(1)
    batch["kind"], batch["priv"], batch["pc"] = Kind.FENCE, Priv.S, signed(KERNEL)
    made = Causes(4)
    made.feed(batch, np.ones((4, 1), np.int64), np.array([0]))
    (row,) = made.document(KEPT, None)["sites"]
    assert (row["site"], row["address"], row["event"]) == (f"{KERNEL:#x}", KERNEL, "fence")
