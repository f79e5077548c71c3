"""Random address spaces, as a memory to ask and as the reference that says what is right."""

from __future__ import annotations

import random

import numpy as np

from cosim.paging.physical import RamWords
from cosim.paging.space import Space
from hypervisor_model.events import Priv
from hypervisor_model.jit import signed
from hypervisor_model.mmu import Status
from tests.hypervisor_model import random_tables, reference_mmu
from tests.hypervisor_model.random_tables import Layout, Tables

BASE, SIZE = 0x8000_0000, 0x100_0000
LAYOUT = Layout(pool=BASE, pool_pages=2048, data=0x8080_0000, data_size=0x80_0000, outside=1 << 40)


KERNEL = Status()


class Frozen(reference_mmu.Memory):
    """A memory in which a walk cannot set A or D."""

    def write(self, address: int, value: int) -> None:
        self.check(address)


class Guest:
    """Random tables and the registers that select them.

    :param mode: of the first stage.
    :param g_mode: of the G-stage; None if there is one stage.
    """

    def __init__(self, seed: int, mode: int, g_mode: int | None, count: int = 12) -> None:
        self.reference = reference_mmu.Memory(BASE, SIZE)
        tables = Tables(random.Random(seed), LAYOUT, self.reference)
        laid: random_tables.Space
        if g_mode is None:
            laid = tables.one_stage(mode, count)
        else:
            laid = tables.two_stage(mode, g_mode, count)
        self.addresses = laid.addresses
        self.satp, self.hgatp = laid.satp, laid.hgatp
        words = np.zeros(SIZE >> 3, np.int64)
        for address, value in self.reference.words.items():
            words[(address - BASE) >> 3] = signed(value)
        self.words = words
        self.memory = RamWords(words, BASE)

    def space(self, status: Status = KERNEL) -> Space:
        """The address space, for a hart in the state ``status``."""
        if self.hgatp is None:
            return Space(satp=self.satp, status=status)
        return Space(vsatp=self.satp, hgatp=self.hgatp, status=status)

    def pa(self, va: int, status: Status, access: str) -> int | None:
        """Where an access goes by the specification; None if it faults.  Nothing is written."""
        hart = reference_mmu.Hart(
            Frozen(BASE, SIZE, self.reference.words),
            self.satp,
            self.hgatp,
            supervisor=status.priv is Priv.S,
            sum=status.sum,
            adue=status.adue,
            g_adue=status.g_adue,
            pbmte=status.pbmte,
            g_pbmte=status.g_pbmte,
        )
        return reference_mmu.translate(hart, va, access).pa

    def sample(self, rng: random.Random, others: list[int]) -> list[int]:
        """Addresses to ask about: those laid out, ``others``, and neighbours of both."""
        near = [
            (va + rng.choice((-8, 8, 4096, -4096, 1 << 16, 1 << 21, -(1 << 21)))) % (1 << 64)
            for va in (*self.addresses, *others)
        ]
        return [*self.addresses, *others, *near]
