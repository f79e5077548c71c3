"""``python -m hypervisor_model.precompile``: compile every model now, rather than at its first use.

Without arguments it compiles all policies, the legality tracker and the fence checker; with names
only these; with ``--first`` those that a run without ``--model`` needs.  The others are compiled
when they are first asked for.  It uses as many processes as there are processors.  Policies that
share most of their code are compiled in processes forked from one that has compiled the first.

:func:`missing` says what a program that is about to use models should have compiled so.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable

import numpy as np

from hypervisor_model import events, jit
from hypervisor_model.errors import CosimError
from hypervisor_model.fences import FenceChecker
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import POLICIES, MachineModel, make
from hypervisor_model.policies.shadow_policy import ShadowPolicy

LEGALITY = "legality"
FIRST = ("native", "nested", "shadow", "lsp", LEGALITY)
"""What the first run needs: the default models, and the judge of their answers."""
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

    :param names: of policies, :data:`LEGALITY`, or ``--first`` for :data:`FIRST`.
    :raises UsageError: when there is no such policy.
    """
    named = [one for name in names for one in (FIRST if name == "--first" else (name,))]
    wanted = list(dict.fromkeys(named or [*FIRST, *POLICIES, FENCES]))
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


def missing(specs: Iterable[str]) -> list[str]:
    """Return the names of what the cache lacks of some models, and of the legality tracker.

    :param specs: of policies, as :func:`hypervisor_model.policies.make` takes them.
    """
    names = dict.fromkeys([*(spec.partition(":")[0] for spec in specs), LEGALITY])
    return [name for name in names if _is_cold(name)]


def _is_cold(name: str) -> bool:
    """Return True if the cache could have a model of this package, and does not."""
    if name != LEGALITY and name not in POLICIES:
        return False
    module = LegalityTracker.__module__ if name == LEGALITY else POLICIES[name].__module__
    folder = jit.cache_folder(module) if module.startswith(f"{__package__}.") else None
    return folder is not None and not any(folder.rglob("*.nbc"))


def _is_shadow(name: str) -> bool:
    kind = POLICIES.get(name.partition(":")[0])
    return kind is not None and issubclass(kind, ShadowPolicy)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except CosimError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
