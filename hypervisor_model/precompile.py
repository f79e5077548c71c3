"""``python -m hypervisor_model.precompile``: compile every model now, rather than at its first use.

Without arguments all policies and the legality tracker are compiled, one process each and as many
at a time as there are processors; with names only these.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import numpy as np

from hypervisor_model import events
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import POLICIES, MachineModel, make

LEGALITY = "legality"


def precompile(name: str) -> str:
    """Compile the policy ``name``, or the legality tracker; return ``name``.

    Raises:
        UsageError: there is no such policy.
    """
    machine = MachineModel(ram_size=1 << 20)
    batch = events.empty(1)
    batch["kind"] = events.Kind.MARK
    if name == LEGALITY:
        LegalityTracker(machine, ["reference"]).feed(batch, np.zeros((1, 1), np.int64))
    else:
        make(name, machine).feed(batch)
    return name


def main(names: list[str]) -> None:
    """Compile ``names``, or everything, saying what is done on stderr."""
    wanted = names or [LEGALITY, "lsp", "shadow", "nested", *POLICIES]
    wanted = list(dict.fromkeys(wanted))
    processes = min(len(wanted), os.cpu_count() or 1)
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        for number, name in enumerate(pool.imap_unordered(precompile, wanted, chunksize=1), 1):
            print(f"compiled {name} ({number}/{len(wanted)})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
