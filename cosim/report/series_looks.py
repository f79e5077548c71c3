"""The colour and marker of each series; a policy has its own, on every plot.

Policies bring their colours (:mod:`hypervisor_model.policies`), so that a new one is one new file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hypervisor_model.policies import POLICIES, Colour

SPARE = (Colour("#9b5964", "#d08a93"),)
"""For series that are no policy."""


class Look(NamedTuple):
    """How a series is drawn."""

    colour: int
    """Its place in :func:`palette`."""
    marker: int
    """The number of its marker."""
    hollow: bool = False
    """Its colour is used a second time."""


def policy_colours() -> dict[str, Colour]:
    """Return the colour of each policy, in the order of the registry."""
    return {name: kind.colour for name, kind in POLICIES.items()}


def policy_label(name: str) -> str | None:
    """Return what the policy of the model ``name`` is called in words; None if there is none."""
    found = POLICIES.get(name.partition(":")[0])
    return None if found is None else found.label


def palette() -> list[Colour]:
    """Return all colours: the policies', then the spare ones."""
    return [*policy_colours().values(), *SPARE]


def looks(*plots: Iterable[str]) -> dict[str, Look]:
    """Return the look of each series, by the names on each of ``plots``.

    A policy always looks the same.  A model with options (``shadow:roots=4``) looks like its policy
    if no other model of that policy is there.  All others get a colour that no policy here has,
    and no other series on their plot, spare colours first.  When colours run out they are used
    again, with hollow markers.
    """
    own = {name: place for place, name in enumerate(policy_colours())}
    groups = [list(dict.fromkeys(names)) for names in plots]
    names = list(dict.fromkeys(name for group in groups for name in group))
    given = {name: own[name] for name in names if name in own}
    for name in names:
        base = name.partition(":")[0]
        if name not in given and base in own and own[base] not in given.values():
            given[name] = own[base]
    colours = len(palette())
    # The first colour, the grey of the floor, only when it is used again.
    free = [*range(len(own), colours), *range(1, len(own)), *range(colours, 2 * colours)]
    policies = set(given.values())
    for group in groups:
        for name in group:
            taken = policies | {given[other] for other in group if other in given}
            left = (place for place in free if place not in taken)
            given.setdefault(name, next(left, free[-1]))
    return {name: Look(place % colours, place, place >= colours) for name, place in given.items()}
