"""The guests that the tool makes itself, by name."""

from __future__ import annotations

from cosim.errors import UsageError
from cosim.output import Step
from guest import debian, linux, making, micro, workloads
from guest.making import Recipe, Status
from guest.spec import GuestSpec

_RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        linux.Recipe(),
        micro.Recipe("micro"),
        micro.Recipe("micro-m"),
        workloads.Recipe(),
        debian.Recipe(),
    )
}

NAMES = tuple(_RECIPES)
"""Every guest that :func:`load` knows."""


def recipe(name: str) -> Recipe:
    """Return the recipe of ``name``.

    :raises UsageError: when there is no such guest.
    """
    if name not in _RECIPES:
        known = ", ".join(NAMES)
        raise UsageError(f"unknown guest {name!r}; the guests are {known} (`cosim guest list`)")
    return _RECIPES[name]


def status(name: str) -> Status:
    """Return what state the files of the guest ``name`` are in.

    :raises UsageError: when there is no such guest.
    """
    return making.status(recipe(name))


def load(name: str) -> GuestSpec:
    """Return the guest ``name``, ready to boot.

    :raises UsageError: when there is no such guest.
    :raises GuestImageError: when it was not made yet, or made by an older version of the tool.
    """
    return making.load(recipe(name))


def ensure(
    name: str, step: Step, *, force: bool = False, kernel: linux.Kernel | None = None
) -> GuestSpec:
    """Return the guest ``name``; make it first if it is missing or out of date.

    :param step: is told how far the work is.
    :param force: make it in any case.
    :param kernel: which kernel the guest ``linux`` shall have; None keeps the one that it has.
    :raises UsageError: when there is no such guest.
    :raises EnvironmentFault: when something that is needed to make it is missing or fails.
    """
    if name == linux.NAME and kernel is not None:
        chosen = linux.Recipe(kernel)
        return making.ensure(chosen, step, force=force or not chosen.has_kernel())
    return making.ensure(recipe(name), step, force=force)
