"""A policy is one class: two that only this file knows, seen from all that names policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from cosim.models.model_options import make_models, make_pipeline, split_models
from cosim.models.result import Ending, Origin
from hypervisor_model import policies
from hypervisor_model.errors import ModelError, UsageError
from hypervisor_model.events import EventBatch, Fence, Kind
from hypervisor_model.exits import Counter, Exit
from hypervisor_model.jit import inner, kernel
from hypervisor_model.policies import Colour, MachineModel, Policy, Stream, shadow_tables
from hypervisor_model.policies import hart as harts
from hypervisor_model.policies.dispatch import Kernels, NoState
from hypervisor_model.policies.event_fields import Event, event_at
from hypervisor_model.policies.hart import Hardware, take_exit
from hypervisor_model.policies.shadow_access import hardware_fence, index_of, store, trap_store
from hypervisor_model.policies.shadow_policy import SHADOW_COUNTERS, SHADOW_EXITS, ShadowPolicy
from hypervisor_model.policies.shadow_tables import Pool, load_root
from hypervisor_model.policies.synchronisation import mirror_entry
from tests.hypervisor_model.guests import PAGE, Guest

FENCE = int(Kind.FENCE)
FENCE_EXIT = int(Exit.FENCE)
SATP_WRITE_EXIT = int(Exit.SATP_WRITE)
BY_ADDRESS = int(Fence.VA)


@dataclass(frozen=True)
class ToyOptions:
    """Options of ``toy``."""

    forms: Literal["all", "address"] = policies.option("all", "the fences that exit")


class Toy(Policy):
    """A policy that exits at fences and translates nothing."""

    name: ClassVar[str] = "toy"
    label: ClassVar[str] = "toy policy"
    colour: ClassVar[Colour] = Colour("#112233", "#ddeeff")
    options: ClassVar[type[Any]] = ToyOptions
    kinds: ClassVar[tuple[Exit, ...]] = (Exit.FENCE,)

    def __init__(self, machine: MachineModel, options: ToyOptions, stream: Stream) -> None:
        super().__init__(machine, stream, harts.make(machine))
        self._form = BY_ADDRESS if options.forms == "address" else 0

    def _consume(self, batch: EventBatch, start: int, answers: NDArray[np.int64]) -> int:
        return int(toy_loop(self.hardware, batch, start, self._form))


@kernel
def toy_loop(hw: Hardware, batch: EventBatch, start: int, form: int) -> int:
    """Count fences that have the bits of a form."""
    for i in range(start, batch.shape[0]):
        event = event_at(batch, i)
        if event.kind == FENCE and event.sub & form == form:
            take_exit(hw, event.hart, FENCE_EXIT)
    return batch.shape[0]  # type: ignore[no-any-return]


class ToyShadow(ShadowPolicy):
    """``shadow``, but every fence forgets all roots."""

    name: ClassVar[str] = "toy-shadow"
    label: ClassVar[str] = "toy shadow paging"
    colour: ClassVar[Colour] = Colour("#332211", "#ffeedd")
    protects: ClassVar[bool] = True
    kinds: ClassVar[tuple[Exit, ...]] = (
        Exit.PT_WRITE,
        Exit.FENCE,
        Exit.SATP_WRITE,
        *SHADOW_EXITS,
    )
    extra: ClassVar[tuple[Counter, ...]] = SHADOW_COUNTERS

    def __init__(self, machine: MachineModel, options: object, stream: Stream) -> None:
        hardware = harts.make(machine)
        super().__init__(machine, stream, hardware, shadow_tables.make(machine, hardware))

    @staticmethod
    def kernels() -> Kernels:
        """The kernels of the policy."""
        return Kernels(toy_pte_write, toy_fence_exit, toy_fence, toy_satp_write)


@inner
def toy_pte_write(hw: Hardware, p: Pool, own: NoState, event: Event) -> None:
    """A store to a live table."""
    page = store(p, event)
    if page >= 0:
        trap_store(hw, p, event)
        mirror_entry(p, page, index_of(event.a), event.c)


@inner
def toy_fence_exit(p: Pool, own: NoState, sub: int) -> int:
    """The kind of exit of a fence."""
    return FENCE_EXIT


@inner
def toy_fence(
    hw: Hardware, p: Pool, own: NoState, hart: int, sub: int, first: int, last: int, asid: int
) -> None:
    """A fence of the guest."""
    shadow_tables.forget_all_roots(p)
    hardware_fence(hw, p, hart, sub, first, last, asid)


@inner
def toy_satp_write(hw: Hardware, p: Pool, own: NoState, hart: int, satp: int) -> None:
    """A write of ``satp``."""
    take_exit(hw, hart, SATP_WRITE_EXIT)
    load_root(p, hart, satp)


@pytest.fixture
def registered() -> Iterator[None]:
    """Both policies, known for the time of one test."""
    for policy in (Toy, ToyShadow):
        policies.register(policy)
    yield
    for policy in (Toy, ToyShadow):
        del policies.POLICIES[policy.name]


@pytest.fixture
def stream() -> tuple[MachineModel, EventBatch]:
    """A guest that uses two pages, fences one, then both, and uses them again."""
    guest = Guest()
    root = guest.page()
    guest.load(root)
    for page in (1, 2):
        guest.map(root, page * PAGE, guest.page())
    for _turn in range(2):
        guest.access(PAGE)
        guest.access(2 * PAGE)
        guest.fence(PAGE)
        guest.fence()
    return MachineModel(ram_base=guest.base, ram_size=guest.size), guest.batch()


@pytest.mark.usefixtures("registered")
def test_a_toy_policy_runs_in_a_pipeline(stream: tuple[MachineModel, EventBatch]) -> None:
    machine, batch = stream
    models = split_models(["toy:forms=address,toy-shadow", "shadow"])
    assert models == ["toy:forms=address", "toy-shadow", "shadow"]
    assert list(make_models(models, machine)) == ["toy", "toy-shadow", "shadow"]
    origin = Origin(
        guest={"name": "toy"},
        backend="plugin",
        region={"from": "boot", "to": "power-off"},
        stream=Stream("all"),
        machine=machine,
    )
    pipeline = make_pipeline(origin, models)
    pipeline.feed(batch)
    result = pipeline.document(Ending(complete=True))["policies"]
    assert result["toy"]["exits"] == {"total": 2, "at_least": 2, "fence": 2}
    assert result["toy-shadow"]["exits"]["fence"] == 4
    assert result["shadow"]["exits"]["shadow_fill"] == 2
    assert result["toy-shadow"]["exits"]["shadow_fill"] == 4


@pytest.mark.usefixtures("registered")
def test_reports_and_help_know_a_toy_policy() -> None:
    toy = policies.POLICIES["toy"]
    assert (toy.label, toy.colour.light) == ("toy policy", "#112233")
    assert policies.documentation(toy.options) == (
        ("forms", ("all", "address"), "all", "the fences that exit"),
    )
    assert list(policies.POLICIES)[-2:] == ["toy", "toy-shadow"], "after those of the package"


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="no policy is called 'toy'"):
        policies.make("toy", MachineModel())


def test_a_name_is_taken_once() -> None:
    class Other(Toy):
        name: ClassVar[str] = "lsp"

    with pytest.raises(ModelError, match="policy lsp is defined in"):
        policies.register(Other)
    assert policies.POLICIES["lsp"] is not Other
