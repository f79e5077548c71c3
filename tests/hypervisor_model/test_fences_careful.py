"""A kernel that fences all that it must, and no more: the checker must not report anything.

It frees table pages and uses them again, splits and joins superpages and NAPOT ranges, gives an
ASID to another root, changes global pages, switches to Bare and back, switches ADUE, and fences in
every form that is enough, with ``sfence.vma`` or the three instructions of Svinval.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor_model.events import ENVCFG_ADUE, Access, Fence, Order, Priv
from hypervisor_model.fences import FenceChecker
from hypervisor_model.hazards import Hazard
from hypervisor_model.policies.machine import MachineModel
from tests.hypervisor_model.guests import PAGE, A, D, G, Guest, R, U, V, W, X, leaf

SIZE = 64 << 20
MEGA = 2 << 20
USER_AT = 0x4000_0000
DIRECT = 0xFFFF_FFC0_0000_0000
"""All of RAM, by one global leaf."""
VMALLOC = DIRECT + (1 << 30)
REGIONS, PAGES = 3, 18
FRAMES = 0x8200_0000
N = 1 << 63
_ACTIONS = (
    *("map", "map", "map", "map", "move", "move", "unmap", "age", "mega", "split", "split"),
    *("join", "napot", "unlink", "switch", "switch", "exit", "kernel", "bare", "adue"),
)
PERMS = (V | R | A | D | U, V | R | W | A | D | U, V | R | X | A | D | U)


class Process:
    def __init__(self, root: int, asid: int) -> None:
        self.root = root
        self.asid = asid
        self.tables: dict[int, int] = {}
        """By region: its leaf table."""
        self.megas: set[int] = set()


class Kernel:
    """A careful kernel on one hart.

    :param skip: the number of the fence that it forgets, from 1; 0: none.
    """

    def __init__(self, seed: int, skip: int = 0) -> None:
        self.rng = random.Random(seed)
        self.guest = Guest(size=SIZE)
        self.skip = skip
        self.fences = 0
        self.pool: list[int] = []
        self.done: Counter[str] = Counter()
        self.adue = False
        self.vmalloc = self.guest.page()
        self.current = Process(0, 0)
        self.processes = [self.process(asid) for asid in (0, 1, 2)]
        self.current = self.processes[0]
        self.load(self.current)
        self.guest.fence()

    # -- parts ------------------------------------------------------------------------------------

    def page(self) -> int:
        if not self.pool:
            return self.guest.page()
        page = self.pool.pop(self.rng.randrange(len(self.pool)))
        for at in range(page, page + PAGE, 8):
            self.guest.words[at] = 0
        self.touch(page)
        return page

    def free(self, page: int) -> None:
        self.pool.append(page)
        self.touch(page)

    def touch(self, pa: int) -> None:
        """Write to a page through the direct map, as whoever uses it now."""
        at = pa if self.current.root == 0 else DIRECT + pa - 0x8000_0000
        self.guest.access(at + 8 * self.rng.randrange(512), Access.WRITE)

    def process(self, asid: int) -> Process:
        root = self.page()
        self.guest.words[root + 8 * 256] = leaf(0x8000_0000, V | R | W | A | D | G)
        self.guest.words[root + 8 * 257] = leaf(self.middle(), V)
        return Process(root, asid)

    def middle(self) -> int:
        if not hasattr(self, "_middle"):
            self._middle = self.guest.page()
            self.guest.words[self._middle] = leaf(self.vmalloc, V)
        return self._middle

    def load(self, process: Process) -> None:
        self.current = process
        self.guest.load(process.root, process.asid)

    def entry(self, process: Process, region: int, page: int) -> int:
        """PA of the entry of a page, in a table that is made if needed."""
        if region not in process.tables:
            table = self.page()
            at = self.guest.entry(process.root, USER_AT + region * MEGA, 1)
            self.guest.store(at, leaf(table, V))
            process.tables[region] = table
        return process.tables[region] + 8 * page

    def fence(self, asid: int | None, va: int | None) -> None:
        """Fence in some form that is enough.

        :param asid: of what changed; None: it is global.
        :param va: of the leaf that changed; None: a pointer to a table did.
        """
        forms: list[tuple[int | None, int | None]] = [(None, None)]
        if asid is not None:
            forms.append((None, asid))
        if va is not None:
            forms.append((va, None))
            if asid is not None:
                forms.append((va, asid))
        self.fences += 1
        if self.fences == self.skip:
            return
        where, named = self.rng.choice(forms)
        if self.rng.random() < 0.3:
            self.guest.order(Order.SFENCE_W_INVAL)
            self.elsewhere(None)
            self.guest.fence(where, named, instruction=Fence.SINVAL_VMA)
            self.guest.order(Order.SFENCE_INVAL_IR)
        else:
            self.guest.fence(where, named)

    def access(self, process: Process, region: int) -> None:
        va = USER_AT + region * MEGA + PAGE * self.rng.randrange(PAGES) + 8
        kind = self.rng.choice(list(Access))
        if process is self.current:
            self.guest.access(va, kind, priv=Priv.U)

    def elsewhere(self, region: int | None) -> None:
        """Access what does not change now."""
        for _ in range(2):
            other = self.rng.randrange(REGIONS)
            if region is not None and other != region:
                self.access(self.current, other)
        self.touch(FRAMES + PAGE * self.rng.randrange(64))

    def look(self) -> None:
        """Access anything."""
        for _ in range(4):
            self.access(self.current, self.rng.randrange(REGIONS))
        self.guest.access(VMALLOC + PAGE * self.rng.randrange(4), Access.READ)
        if self.pool:
            self.touch(self.rng.choice(self.pool))

    # -- what it does -----------------------------------------------------------------------------

    def step(self) -> None:
        name = self.rng.choice(_ACTIONS)
        process = self.rng.choice([self.current, *self.processes])
        region, page = self.rng.randrange(REGIONS), self.rng.randrange(PAGES)
        table = process.tables.get(region)
        if table is not None and name in ("move", "unmap", "age"):
            used = [i for i in range(PAGES) if self.guest.words[table + 8 * i]]
            page = self.rng.choice(used or [page])
        self.done[name] += bool(getattr(self, f"do_{name}")(process, region, page))
        if process is self.current:
            for kind in Access:
                self.guest.access(USER_AT + region * MEGA + page * PAGE, kind, priv=Priv.U)
        self.look()

    def frame(self) -> int:
        return FRAMES + PAGE * self.rng.randrange(64)

    def do_map(self, process: Process, region: int, page: int) -> bool:
        if region in process.megas:
            return False
        at = self.entry(process, region, page)
        if self.guest.words[at]:
            return False
        self.guest.store(at, leaf(self.frame(), self.rng.choice(PERMS)))
        return True

    def _change(self, process: Process, region: int, page: int, value: int) -> bool:
        at = process.tables.get(region, 0) + 8 * page
        old = self.guest.words.get(at, 0)
        if region not in process.tables or not old or old & N:
            return False
        self.guest.store(at, value)
        self.elsewhere(region if process is self.current else None)
        self.fence(process.asid, USER_AT + region * MEGA + page * PAGE)
        return True

    def do_move(self, process: Process, region: int, page: int) -> bool:
        return self._change(process, region, page, leaf(self.frame(), self.rng.choice(PERMS)))

    def do_unmap(self, process: Process, region: int, page: int) -> bool:
        return self._change(process, region, page, 0)

    def do_age(self, process: Process, region: int, page: int) -> bool:
        old = self.guest.words.get(process.tables.get(region, 0) + 8 * page, 0)
        return self._change(process, region, page, old & ~A)

    def do_mega(self, process: Process, region: int, page: int) -> bool:
        if region in process.megas or region in process.tables:
            return False
        at = self.guest.entry(process.root, USER_AT + region * MEGA, 1)
        self.guest.store(at, leaf(FRAMES, PERMS[1]))
        process.megas.add(region)
        return True

    def do_split(self, process: Process, region: int, page: int) -> bool:
        """The old entry is a leaf, so a fence of any of its addresses is enough."""
        if region not in process.megas:
            return False
        table = self.page()
        for i in range(512):
            self.guest.words[table + 8 * i] = leaf(FRAMES + i * PAGE, PERMS[1])
        at = self.guest.entry(process.root, USER_AT + region * MEGA, 1)
        self.guest.store(at, leaf(table, V))
        process.megas.remove(region)
        process.tables[region] = table
        # What both translate alike may be used before the fence.
        self.access(process, region)
        self.fence(process.asid, USER_AT + region * MEGA + page * PAGE)
        return True

    def do_join(self, process: Process, region: int, page: int) -> bool:
        if region not in process.tables:
            return False
        at = self.guest.entry(process.root, USER_AT + region * MEGA, 1)
        self.guest.store(at, leaf(FRAMES, PERMS[1]))
        self.elsewhere(region)
        self.fence(process.asid, None)
        process.megas.add(region)
        self.free(process.tables.pop(region))
        return True

    def do_unlink(self, process: Process, region: int, page: int) -> bool:
        if region not in process.tables:
            return False
        at = self.guest.entry(process.root, USER_AT + region * MEGA, 1)
        self.guest.store(at, 0)
        self.elsewhere(region)
        self.fence(process.asid, None)
        self.free(process.tables.pop(region))
        return True

    def do_napot(self, process: Process, region: int, page: int) -> bool:
        """Map or unmap the first 16 pages as one range."""
        if region in process.megas:
            return False
        first = self.entry(process, region, 0)
        entries = [first + 8 * i for i in range(16)]
        if all(self.guest.words[at] & N for at in entries):
            for at in entries:
                self.guest.store(at, 0)
            self.elsewhere(region)
            if self.rng.random() < 0.5:
                self.fence(process.asid, None)
            else:
                for i in range(16):
                    self.fence(process.asid, USER_AT + region * MEGA + i * PAGE)
            return True
        if any(self.guest.words[at] for at in entries):
            return False
        for at in entries:
            self.guest.store(at, N | leaf(FRAMES + 8 * PAGE, PERMS[1]))
        return True

    def do_switch(self, process: Process, region: int, page: int) -> bool:
        self.load(process)
        return True

    def do_exit(self, process: Process, region: int, page: int) -> bool:
        """The ASID goes to a new process; all tables are freed."""
        if process is self.current:
            self.load(self.rng.choice([one for one in self.processes if one is not process]))
        self.fence(process.asid, None)
        tables = [*process.tables.values()]
        at = self.guest.entry(process.root, USER_AT, 1) & -PAGE
        if process.root in self.guest.roots:
            self.guest.retire(process.root)
        for table in (*tables, at, process.root):
            self.free(table)
        self.processes[self.processes.index(process)] = self.process(process.asid)
        return True

    def do_kernel(self, process: Process, region: int, page: int) -> bool:
        at = self.vmalloc + 8 * (page % 4)
        old = self.guest.words[at]
        value = 0 if old and self.rng.random() < 0.5 else leaf(self.frame(), V | R | W | A | D | G)
        self.guest.store(at, value)
        if old:
            self.elsewhere(region)
            self.fence(None, VMALLOC + page % 4 * PAGE)
        return True

    def do_bare(self, process: Process, region: int, page: int) -> bool:
        before = self.current
        self.guest.load(0)
        self.current = Process(0, 0)
        self._change(before, region, page, 0)
        self.load(before)
        return True

    def do_adue(self, process: Process, region: int, page: int) -> bool:
        self.adue = not self.adue
        self.guest.envcfg(ENVCFG_ADUE * self.adue, ENVCFG_ADUE)
        self.fence(None, None)
        return True


def checked(kernel: Kernel) -> FenceChecker:
    batch = kernel.guest.batch()
    # The guest's own walk knows neither NAPOT nor ADUE.  The checker asks only where a write went.
    batch["pc"] = 0x1000 + 4 * np.arange(len(batch))
    machine = MachineModel(ram_size=SIZE, svadu=False, svvptc=False)
    checker = FenceChecker(machine)
    checker.feed(batch)
    return checker


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_careful_kernel_is_never_reported(seed: int) -> None:
    kernel = Kernel(seed)
    for _ in range(50):
        kernel.step()
    checker = checked(kernel)
    assert checker.findings == []
    assert checker.undecided == 0
    assert checker.accesses > 100


def test_the_careful_kernel_does_all_of_it_and_needs_its_fences() -> None:
    """Without one of its fences it is reported often enough to show that the others are needed."""
    done: Counter[str] = Counter()
    kinds: Counter[Hazard] = Counter()
    for seed in range(80):
        kernel = Kernel(seed, skip=5 + seed % 40)
        for _ in range(120):
            kernel.step()
        done += kernel.done
        kinds.update({finding.kind for finding in checked(kernel).findings})
    assert all(done[name[3:]] > 5 for name in dir(Kernel) if name.startswith("do_")), done
    assert kinds.total() > 15 and len(kinds) >= 5, kinds
