"""Memory-virtualization policies, one file each, by name.

    >>> from hypervisor_model import policies
    >>> lsp = policies.make("lsp:fence_global=drop", policies.MachineModel())
    >>> lsp.name, lsp.result().total
    ('lsp', 0)
    >>> policies.POLICIES["shadow"].label
    'shadow paging'

Every module of this package is imported here, so a new file with a registered class is a new
policy.  A class outside of this package is one from when its module is imported.  Nothing else
needs to know: the class brings its options, its kernels, and the label and colour of reports.

A stream begins with TABLE_ADD and TABLE_ENTRY events for what is live.  ``satp`` starts as Bare.
A source whose region starts later says so by a SATP_WRITE with FLAG_STOP, which no guest made: it
sets the register and is no exit.
"""

from __future__ import annotations

import importlib
import pkgutil

from hypervisor_model.policies.machine import MachineModel, replace_fields
from hypervisor_model.policies.options import OptionDoc, documentation, option
from hypervisor_model.policies.policy import (
    POLICIES,
    Accesses,
    Colour,
    OwnEvents,
    Policy,
    PolicyResult,
    Stream,
    make,
    own_events,
    register,
)

__all__ = [
    "POLICIES",
    "Accesses",
    "Colour",
    "MachineModel",
    "OptionDoc",
    "OwnEvents",
    "Policy",
    "PolicyResult",
    "Stream",
    "documentation",
    "make",
    "option",
    "own_events",
    "register",
    "replace_fields",
]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
