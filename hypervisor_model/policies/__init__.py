"""Memory-virtualization policies, one file each, by name.

    >>> from hypervisor_model import policies
    >>> lsp = policies.make("lsp:fence_global=drop", policies.MachineModel())
    >>> lsp.name, lsp.result().total
    ('lsp', 0)

A stream begins with TABLE_ADD and TABLE_ENTRY events for what is live.  ``satp`` starts as Bare;
a source whose region starts later says so by a SATP_WRITE with FLAG_STOP, which no guest made: it
sets the register and is no exit.
"""

from __future__ import annotations

from typing import Any

from hypervisor_model.errors import UsageError
from hypervisor_model.policies.lsp import LazyShadowPaging, LspOptions
from hypervisor_model.policies.machine import MachineModel
from hypervisor_model.policies.native import Native
from hypervisor_model.policies.nested import Nested
from hypervisor_model.policies.oos import OosOptions, OutOfSync
from hypervisor_model.policies.options import NoOptions, parse
from hypervisor_model.policies.policy import Accesses, Colour, Policy, PolicyResult, Stream
from hypervisor_model.policies.shadow import ShadowOptions, ShadowPaging
from hypervisor_model.policies.ssp import SspOptions, SwiftShadowPaging
from hypervisor_model.policies.unsync import Unsync, UnsyncOptions
from hypervisor_model.policies.vtlb import VirtualTlb

__all__ = [
    "POLICIES",
    "Accesses",
    "Colour",
    "MachineModel",
    "Policy",
    "PolicyResult",
    "Stream",
    "make",
]

POLICIES: dict[str, tuple[type[Any], type[Any]]] = {
    "native": (Native, NoOptions),
    "nested": (Nested, NoOptions),
    "shadow": (ShadowPaging, ShadowOptions),
    "lsp": (LazyShadowPaging, LspOptions),
    "vtlb": (VirtualTlb, NoOptions),
    "unsync": (Unsync, UnsyncOptions),
    "oos": (OutOfSync, OosOptions),
    "ssp": (SwiftShadowPaging, SspOptions),
}
"""Class and type of options of each policy, by name."""


def make(spec: str, machine: MachineModel, stream: Stream | None = None) -> Policy:
    """The policy that ``spec`` describes: ``NAME`` or ``NAME:key=value,key=value``.

    Args:
        spec: a name of :data:`POLICIES` and options of its type.
        machine: what all policies of a run share.
        stream: how complete the events are; by default every access is there.

    Raises:
        UsageError: no such policy or option, or a value that an option cannot have.
    """
    name, _, text = spec.partition(":")
    if name not in POLICIES:
        raise UsageError(f"no policy is called {name!r}; there are {', '.join(POLICIES)}")
    kind, options = POLICIES[name]
    policy: Policy = kind(machine, parse(name, options, text), stream or Stream())
    return policy
