"""``python -m hypervisor_model.precompile``: compile every model now, rather than at its first use.

Without arguments it compiles all policies, the legality tracker and the fence checker; with names
only these.  It uses as many processes as there are processors.  Policies that share most of their
code are compiled in processes forked from one that has compiled the first of them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import numpy as np

from hypervisor_model import events
from hypervisor_model.errors import CosimError
from hypervisor_model.fences import FenceChecker
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import POLICIES, MachineModel, make
from hypervisor_model.policies.shadow_policy import ShadowPolicy

LEGALITY = "legality"
FENCES = "fences"

_FORK = multiprocessing.get_context("fork")


def precompile(name: str) -> str:
    """Compile the policy ``name``, the legality tracker or the fence checker; return ``name``.

    :raises UsageError: when there is no such policy.
    """
    machine = MachineModel(ram_size=1 << 20)
    batch = events.empty(1)
    batch["kind"] = events.Kind.MARK
    if name == LEGALITY:
        LegalityTracker(machine, ["reference"]).feed(batch, np.zeros((1, 1), np.int64))
    elif name == FENCES:
        FenceChecker(machine).feed(batch)
    else:
        make(name, machine).feed(batch)
    print(f"compiled {name}", file=sys.stderr, flush=True)
    return name


def main(names: list[str]) -> None:
    """Compile ``names``, or everything, saying what is done on stderr.

    :raises UsageError: when there is no such policy.
    """
    wanted = list(dict.fromkeys(names or [*POLICIES, LEGALITY, FENCES]))
    for name in wanted:
        if name not in (LEGALITY, FENCES):
            make(name, MachineModel(ram_size=1 << 20))
    related = [name for name in wanted if _is_shadow(name)]
    others = [name for name in wanted if name not in related]
    processes = os.cpu_count() or 1
    with _FORK.Pool(max(1, processes - 1)) as pool:
        pending = pool.map_async(precompile, others, chunksize=1)
        if related:
            precompile(related[0])
            with _FORK.Pool(processes) as more:
                more.map(precompile, related[1:], chunksize=1)
        pending.get()


def _is_shadow(name: str) -> bool:
    kind = POLICIES.get(name.partition(":")[0])
    return kind is not None and issubclass(kind, ShadowPolicy)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CosimError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
