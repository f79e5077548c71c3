#!/usr/bin/env python3
"""Benchmark: TLB hits and page walks per second, on one core.

    scripts/bench_model.py [--json] [--pages N] [--rounds N]

Everything is measured in one run, in processor time, best of some rounds, and given as a ratio to
a bare compiled loop over the same random addresses that makes one load each from a flat table.
N pages of 4 KiB are mapped (default 65,536: 256 MiB of guest, and leaf tables of 512 KiB) and
visited in random order.

What limits it is printed, too: each reference of a walk is a load that depends on the one before,
then some twenty instructions of checks; a two-stage walk is 15 to 35 of them in a row.

How many events per second a policy takes is in scripts/bench_replay.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hypervisor_model import tlb as tlbs
from hypervisor_model import walk, walk_cache
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import kernel
from hypervisor_model.memory import GuestMemory, Ram
from hypervisor_model.tlb import Tlb
from hypervisor_model.walk import Request, walk1, walk2
from hypervisor_model.walk_cache import WalkCache

BASE = 0x8000_0000
ROUND = 1_000_000
LEAF = pte.V | pte.R | pte.W | pte.X | pte.A | pte.D
AIMS = {"TLB hit, first level": 3e6, "walk Sv39": 1e6}
"""What should be reached at least, operations per second."""


@kernel
def bare_loop(table: NDArray[np.int64], vas: NDArray[np.int64], n: int) -> int:
    """One load each from a flat table of pages."""
    total = 0
    mask = vas.shape[0] - 1
    for i in range(n):
        total += table[(vas[i & mask] - BASE) >> 12]
    return total


@kernel
def chase(table: NDArray[np.int64], n: int) -> int:
    """Loads of which each depends on the one before, as those of a walk do."""
    at = 0
    for _ in range(n):
        at = table[at]
    return at


@kernel
def lookups(tlb: Tlb, vas: NDArray[np.int64], n: int) -> int:
    found = 0
    mask = vas.shape[0] - 1
    for i in range(n):
        found += tlbs.lookup(tlb, vas[i & mask], 0, -1, 0, 1, 0) >= 0
    return found


@kernel
def walks1(
    ram: Ram,
    cache: WalkCache,
    satp: int,
    vas: NDArray[np.int64],
    n: int,
    trace: NDArray[np.int64],
) -> int:
    total = 0
    mask = vas.shape[0] - 1
    for i in range(n):
        total += walk1(ram, cache, satp, Request(vas[i & mask], 0, 1, 0), trace).pa
    return total


@kernel
def walks2(
    ram: Ram,
    cache: WalkCache,
    vsatp: int,
    hgatp: int,
    vas: NDArray[np.int64],
    n: int,
    trace: NDArray[np.int64],
) -> int:
    total = 0
    mask = vas.shape[0] - 1
    for i in range(n):
        request = Request(vas[i & mask], 0, 1, 0)
        total += walk2(ram, ram, cache, vsatp, hgatp, request, trace).pa
    return total


class Tables:
    """Identity maps of the first pages of RAM, with tables of every mode."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.memory = GuestMemory(BASE, (pages << 12) + (64 << 20))
        self._next = BASE + (pages << 12)

    def root(self, mode: Mode, *, g_stage: bool = False) -> int:
        """A new root, as a register value."""
        span = 4 if g_stage else 1
        self._next = -(-self._next // (span << 12)) * (span << 12)
        root = self._next
        self._next += span << 12
        leaf = LEAF | pte.U if g_stage else LEAF
        # The G-stage must map the tables, too, which lie behind the pages.
        last = self._next if g_stage else BASE + (self.pages << 12)
        for address in range(BASE, last, 4096):
            at = root
            for level in range(mode.levels - 1, 0, -1):
                where = at + 8 * (address >> pte.level_bits(level) & 511)
                if self.memory.read(where) == 0:
                    self.memory.write(where, self._next >> 2 | pte.V)
                    self._next += 4096
                at = pte.target(self.memory.read(where))
            self.memory.write(at + 8 * (address >> 12 & 511), address >> 2 | leaf)
        return make(mode, root)


def best(task: Callable[[], object], rounds: int) -> float:
    """Processor seconds of the fastest of some rounds, after one that compiles and warms up."""
    task()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        task()
        times.append(time.process_time() - started)
    return min(times)


def measure(pages: int, rounds: int) -> dict[str, float]:
    """Operations per second by name."""
    rng = np.random.default_rng(1)
    tables = Tables(pages)
    ram = tables.memory.ram
    # A power of two of addresses, so that loops wrap with a mask.
    vas = BASE + (rng.integers(0, pages, 1 << 17) << 12)
    none = walk.trace_of(0)
    cache = walk_cache.make()
    seconds: dict[str, float] = {}

    flat = np.arange(pages, dtype=np.int64)
    seconds["bare loop, one load"] = best(lambda: bare_loop(flat, vas, ROUND), rounds)
    order = rng.permutation(pages)
    ring = np.empty(pages, np.int64)
    ring[order] = np.roll(order, -1)
    seconds["dependent load"] = best(lambda: chase(ring, ROUND), rounds)

    for name, count in (("first level", 16), ("second level", 512)):
        tlb = tlbs.make()
        few = BASE + (rng.permutation(count) << 12)
        for va in few:
            result = walk.Walk(
                cause=-1,
                pa=int(va),
                level=0,
                page_bits=12,
                perm=LEAF,
                entry=0,
                gpa=-1,
                g_level=-1,
                g_page_bits=walk.BARE_BITS,
                vs_page_bits=12,
                g_perm=walk.BARE_PERM,
                implicit=0,
                vs_refs=3,
                g_refs=0,
            )
            tlbs.fill(tlb, int(va), 0, -1, 0, result)
        assert lookups(tlb, few, 10_000) == 10_000
        seconds[f"TLB hit, {name}"] = best(partial(lookups, tlb, few, ROUND), rounds)

    roots = {mode: tables.root(mode) for mode in (Mode.SV39, Mode.SV48, Mode.SV57)}
    for mode, satp in roots.items():
        name = f"walk {mode.name.capitalize()}"
        seconds[name] = best(partial(walks1, ram, cache, satp, vas, ROUND, none), rounds)
    for mode in (Mode.SV39, Mode.SV48, Mode.SV57):
        vsatp, hgatp = roots[mode], tables.root(mode, g_stage=True)
        mode_name = mode.name.capitalize()
        name = f"walk {mode_name} on {mode_name}x4"
        count = ROUND // 4
        seconds[name] = 4 * best(
            partial(walks2, ram, cache, vsatp, hgatp, vas, count, none), rounds
        )
    return {name: ROUND / took for name, took in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--pages", type=int, default=1 << 16, help="pages mapped (65536)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (5)")
    options = parser.parse_args()
    rates = measure(options.pages, options.rounds)
    base = rates["bare loop, one load"]
    results = {
        name: {"per_second": round(rate), "times_bare_loop": round(base / rate, 2)}
        for name, rate in rates.items()
    }
    if options.json:
        aims = {name: {"aim": aim, "reached": rates[name] >= aim} for name, aim in AIMS.items()}
        print(json.dumps({"pages": options.pages, "results": results, "aims": aims}, indent=2))
        return
    print(f"{options.pages} pages, random order; cost as a multiple of a bare compiled loop")
    for name, result in results.items():
        print(f"{name:28} {result['per_second']:>14,}/s {result['times_bare_loop']:>8.1f} x")
    for name, aim in AIMS.items():
        print(f"aim: {aim:,.0f}/s {name}: {'reached' if rates[name] >= aim else 'missed'}")
    references = {"walk Sv39": 3, "walk Sv39 on Sv39x4": 15, "walk Sv57 on Sv57x4": 35}
    for name, count in references.items():
        own = 1e9 / rates[name] / count
        print(f"limit: {name}: {own:.0f} ns per reference; a dependent load alone takes "
              f"{1e9 / rates['dependent load']:.1f} ns")  # fmt: skip


if __name__ == "__main__":
    main()
