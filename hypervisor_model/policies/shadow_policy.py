"""The base class of all policies with shadow tables."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.events import EventBatch
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels, NoState, loop
from hypervisor_model.policies.hart import Hardware
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.policy import Policy, Stream
from hypervisor_model.policies.shadow_tables import Pool

SHADOW_EXITS = (Exit.SHADOW_FILL, Exit.DIRTY_FILL, Exit.GUEST_FAULT)
"""Exits that an access can take, in every policy with shadow tables."""
SHADOW_COUNTERS = (
    Counter.SHADOW_PAGES,
    Counter.SHADOW_PAGES_PEAK,
    Counter.SHADOW_PAGES_MADE,
)


class ShadowPolicy(Policy):
    """A policy that has a pool of shadow pages.

    Its class names four kernels (:meth:`kernels`); all else is common.
    """

    protects: ClassVar[bool] = False
    """True if tables are write-protected, so that the policy notices when one dies."""
    _loops: ClassVar[dict[type[ShadowPolicy], Any]] = {}

    def __init__(
        self,
        machine: MachineModel,
        stream: Stream,
        hardware: Hardware,
        pool: Pool,
        own: tuple[Any, ...] = NoState(),
    ) -> None:
        """Begin with empty tables.

        :param own: what the policy's kernels need besides: a NamedTuple of options and arrays.
        """
        super().__init__(machine, stream, hardware)
        self.pool = pool
        """The shadow tables; kernels change them."""
        self._own = own
        self._run = self._loop()

    @staticmethod
    @abstractmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""

    @classmethod
    def _loop(cls) -> Any:
        if cls not in ShadowPolicy._loops:
            ShadowPolicy._loops[cls] = loop(
                cls.__module__, cls.name, cls.kernels(), protects=cls.protects
            )
        return ShadowPolicy._loops[cls]

    def _consume(self, batch: EventBatch, start: int, answers: NDArray[np.int64]) -> int:
        return int(self._run(self.hardware, self.pool, self._own, batch, start, answers))

    def _grow(self) -> None:
        self.pool = shadow_tables.grow(self.pool)
