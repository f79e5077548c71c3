"""How one guest gets from its recipe to files that boot."""

from __future__ import annotations

import contextlib
import os
from typing import Literal, Protocol

from cosim.errors import GuestImageError
from cosim.output import Step
from guest import spec
from guest.spec import GuestSpec

Status = Literal["ready", "outdated", "missing"]


class Recipe(Protocol):
    """How one guest is made; it writes its own ``guest.json`` last."""

    @property
    def name(self) -> str:
        """The guest's name, which is also that of its folder."""
        ...

    verb: str
    """What ``cosim guest`` calls the making: fetch or build."""
    summary: str
    """One line for people."""

    def sources(self) -> str:
        """Return a text that changes when the guest must be made again."""
        ...

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Make the guest; unless ``force``, keep what is there and still right.

        :raises EnvironmentFault: when a package or the compiler is missing, or fails.
        """
        ...


def status(recipe: Recipe) -> Status:
    """Return what state the files of a guest are in."""
    sources = recipe.sources()
    found = spec.read(recipe.name)
    if found is None:
        return "missing"
    return "ready" if found.sources == sources else "outdated"


def load(recipe: Recipe) -> GuestSpec:
    """Return the guest of ``recipe``, ready to boot.

    :raises GuestImageError: when it was not made yet, or made by an older version of the tool.
    """
    state = status(recipe)
    found = spec.read(recipe.name)
    if state != "ready" or found is None:
        word = "out of date" if state == "outdated" else "not there yet"
        raise GuestImageError(
            f"guest {recipe.name} is {word}: type `cosim guest {recipe.verb} {recipe.name}`"
        )
    if recipe.verb == "build":
        # It was made from these sources, whatever time a checkout gave them.  gdb goes by times,
        # and would warn of sources that are newer.
        with contextlib.suppress(OSError):
            os.utime(found.kernel)
    return found


def ensure(recipe: Recipe, step: Step, *, force: bool = False) -> GuestSpec:
    """Return the guest of ``recipe``; make it first if it is missing or out of date.

    :param step: is told how far the work is.
    :param force: make it in any case.
    :raises EnvironmentFault: when something that is needed to make it is missing or fails.
    """
    if force or status(recipe) != "ready":
        with spec.lock(recipe.name):
            # Another session may have made it while we waited.
            if force or status(recipe) != "ready":
                recipe.make(step, force)
    return load(recipe)
