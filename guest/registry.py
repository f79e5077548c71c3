"""The guests that the tool makes itself, by name."""

from __future__ import annotations

from typing import Literal, Protocol

from cosim.errors import GuestImageError, UsageError
from cosim.output import Step
from guest import linux, micro, spec, workloads
from guest.spec import GuestSpec


class Recipe(Protocol):
    """How one guest is made; it writes its own ``guest.json`` last."""

    verb: str
    """What ``cosim guest`` calls it: fetch or build."""
    summary: str
    """One line for people."""

    def sources(self) -> str:
        """Identifies the recipe: changes when the guest must be made again."""
        ...

    def make(self, step: Step, force: bool) -> GuestSpec:
        """Make the guest; unless ``force``, what is there and still right is kept."""
        ...


_RECIPES: dict[str, Recipe] = {
    "linux": linux.Recipe(),
    "micro": micro.Recipe("micro"),
    "micro-m": micro.Recipe("micro-m"),
    "workloads": workloads.Recipe(),
}

NAMES = tuple(_RECIPES)
"""Every guest that :func:`load` knows."""

Status = Literal["ready", "outdated", "missing"]


def recipe(name: str) -> Recipe:
    """The recipe of ``name``.

    :raise UsageError: there is no such guest.
    """
    if name not in _RECIPES:
        raise UsageError(f"no guest {name!r}: there are {', '.join(NAMES)} (`cosim guest list`)")
    return _RECIPES[name]


def status(name: str) -> Status:
    """Whether the guest can be used as it is.

    :raise UsageError: there is no such guest.
    """
    sources = recipe(name).sources()
    found = spec.read(name)
    if found is None:
        return "missing"
    return "ready" if found.sources == sources else "outdated"


def load(name: str) -> GuestSpec:
    """The guest ``name``, ready to boot.

    :raise UsageError: there is no such guest.
    :raise GuestImageError: it is not fetched or built yet, or by an older version of the tool.
    """
    state = status(name)
    found = spec.read(name)
    if state != "ready" or found is None:
        word = "out of date" if state == "outdated" else "not there yet"
        raise GuestImageError(
            f"guest {name} is {word}: type `cosim guest {recipe(name).verb} {name}`"
        )
    return found


def ensure(name: str, step: Step, *, force: bool = False) -> GuestSpec:
    """The guest ``name``; made when missing or out of date, or always with ``force``.

    ``step`` is told how far fetching or building is.

    :raise UsageError: there is no such guest.
    :raise EnvironmentFault: something that is needed to make it is missing or failed.
    """
    if force or status(name) != "ready":
        with spec.lock(name):
            # Another session may have made it while we waited.
            if force or status(name) != "ready":
                recipe(name).make(step, force)
    return load(name)
