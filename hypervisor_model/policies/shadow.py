"""``shadow``: traditional shadow paging (TSP); every guest table with a shadow is write-protected.

- PTE_WRITE to a protected page: exit ``pt_write``; the store is emulated and the shadow entry
  synchronised at once, so that no fill follows.  To another page: nothing.
- FENCE: exit ``fence``; the hart's TLB is flushed accordingly.
- SATP_WRITE: exit ``satp_write``; the shadow of the root is loaded, kept from before if there is
  one.
- ACCESS without a usable shadow entry: ``shadow_fill``, ``dirty_fill`` or ``guest_fault``.

If the stream does not have every access, ``fill`` is always ``whole``: nothing tells then which
tables fills on demand would have shadowed, and so protected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from hypervisor_model.exits import Counter, Exit
from hypervisor_model.jit import inner
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies import shadow_tables
from hypervisor_model.policies.dispatch import Kernels
from hypervisor_model.policies.event_fields import Event
from hypervisor_model.policies.hart import Hardware, take_exit
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.options import KEEP_ALL, ROOTS_DOC, Roots, option
from hypervisor_model.policies.policy import Colour, PolicyResult, Stream, register
from hypervisor_model.policies.shadow_access import hardware_fence, index_of, store, trap_store
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import Pool, retain
from hypervisor_model.policies.synchronisation import load_filled, mirror_entry

_FENCE = int(Exit.FENCE)
_SATP_WRITE = int(Exit.SATP_WRITE)


@dataclass(frozen=True)
class ShadowOptions:
    """Options of ``shadow``."""

    fill: Literal["demand", "whole"] = option(
        "demand",
        "when entries are shadowed: at the first access that needs them (demand), or "
        "with their whole table when it is linked below a loaded root (whole)",
    )
    roots: Roots = option(KEEP_ALL, ROOTS_DOC)  # noqa: RUF009


class ShadowState(NamedTuple):
    """Options of ``shadow`` inside kernels."""

    roots: int


@register
class ShadowPaging(ShadowPolicy):
    """Traditional shadow paging."""

    name: ClassVar[str] = "shadow"
    label: ClassVar[str] = "shadow paging"
    colour: ClassVar[Colour] = Colour("#e26011", "#f38b17")
    place: ClassVar[int] = 30
    options: ClassVar[type[Any]] = ShadowOptions
    protects: ClassVar[bool] = True
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.PT_WRITE,
        Exit.FENCE,
        Exit.SATP_WRITE,
        Exit.REMOTE_FENCE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = (Counter.SINVAL, *SHADOW_COUNTERS)

    def __init__(self, machine: MachineModel, options: ShadowOptions, stream: Stream) -> None:
        whole = options.fill == "whole" or stream.accesses != "all"
        hardware = harts.make(machine)
        pool = shadow_tables.make(machine, hardware, whole=whole)
        super().__init__(machine, stream, hardware, pool, ShadowState(options.roots))
        self._must_be_whole = whole and options.fill != "whole"

    @staticmethod
    def kernels() -> Kernels:
        """Return the kernels of the policy."""
        return Kernels(pte_write, fence_exit, fence, satp_write)

    def result(self) -> PolicyResult:
        """Return the counts so far."""
        result = super().result()
        if self._must_be_whole:
            result.reasons["exits.pt_write"] = (
                "with fill=whole, since fills on demand need every access: every live table is "
                "protected, so there are at least as many as on demand"
            )
        return result

    def _access_bound(self) -> Iterable[Exit | Counter]:
        # Whole tables are filled without accesses, but for entries whose A or D the guest's
        # machine is to set.
        return (Exit.SHADOW_FILL, Exit.DIRTY_FILL) if self.machine.svadu else ()


@inner
def pte_write(hw: Hardware, p: Pool, own: ShadowState, event: Event) -> None:
    """Handle a store to a live table."""
    page = store(p, event)
    if page >= 0:
        trap_store(hw, p, event)
        mirror_entry(p, page, index_of(event.a), event.c)


@inner
def fence_exit(p: Pool, own: ShadowState, sub: int) -> int:
    """Return the kind of exit of a fence."""
    return _FENCE


@inner
def fence(
    hw: Hardware, p: Pool, own: ShadowState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """Handle a fence of the guest on a hart."""
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def satp_write(hw: Hardware, p: Pool, own: ShadowState, hart: int, satp: int) -> None:
    """Handle a write of ``satp``."""
    take_exit(hw, hart, _SATP_WRITE)
    load_filled(p, hart, satp)
    retain(p, own.roots)
