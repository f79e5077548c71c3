"""One measurement: a guest, the models over its events, and the machine that they model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosim.run.run_spec import RunSpec
from cosim.session.backends.plugin import Plugin
from cosim.session.protocol import Backend
from guest.workloads.catalog import WORKLOADS, Size
from hypervisor_model.policies import MachineModel

BASE = {"setup": "base"}
BASE_MODELS = ("shadow", "lsp", "unsync", "oos", "ssp", "vtlb")
"""Of the experiments without the H extension: the modelled machine, and the policies."""


@dataclass(frozen=True)
class Measurement:
    """One guest under some models on one modelled machine.

    Measurements of the same guest share its capture.
    """

    spec: RunSpec
    """The guest and its region; its own ``models`` and ``machine`` are not used."""
    models: tuple[str, ...]
    """As ``--model`` takes them."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``MachineModel`` that differ from its defaults."""
    seconds: float = 1.0
    """A guess of the time it takes on a free core; shown as the time left."""


def describe_tlb(machine: Mapping[str, Any]) -> str:
    """Return the TLB of the machine with these fields in words: sets x ways of each buffer."""
    tlb = MachineModel.from_json(machine).tlb
    shapes = {"for data": tlb.data, "for code": tlb.fetch, "behind them": tlb.second}
    buffers = [f"{s[0]} x {s[1]} {what}" for what, s in shapes.items() if s is not None]
    holds = "of any page size" if tlb.superpages else "of 4 KiB"
    return f"{', '.join(buffers)}, {tlb.replacement.name}; first-level entries {holds}"


def micro(name: str, options: Mapping[str, object], *, backend: Backend | None = None) -> RunSpec:
    """Return a run of the micro-benchmark in the bare S-mode guest.

    Its ``options`` are those of guest/micro/bench.c.  It reads every page once and sets the mark
    ``measured`` before what is to be counted.
    """
    words = [f"{key}={value}" for key, value in options.items()]
    return RunSpec(
        name=name,
        guest="micro",
        workload=" ".join(["scenario=lsp-bench", "warm=1", "seed=1", *words]),
        backend=backend or Plugin(),
        time_limit=600,
    )


def program(name: str, size: Size, arguments: str = "") -> RunSpec:
    """Return a run of a program of :data:`guest.workloads.WORKLOADS` in the Linux guest.

    :param arguments: replace those that the program has at that size.
    """
    return RunSpec(
        name=f"{name}-{size}",
        guest="workloads",
        workload=f"{WORKLOADS[name].run(size)} {arguments}".strip(),
        backend=Plugin(),
        time_limit=1800,
    )
