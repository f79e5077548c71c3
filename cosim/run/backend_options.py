"""What a run may ask of a backend: options, declared once for the command line and for run files.

A backend is a source of events with a way to run a guest (:mod:`cosim.session.protocol`).  Here is
what the run's description knows of it: its name, its options, and which of them go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cosim.run.checks import Check
from cosim.run.names import Names

OPTION = "option"
"""Key of an :class:`Option` in the metadata of a dataclass field."""
BOTH = frozenset({"run", "capture"})
"""The commands that run a guest."""


class Problem(NamedTuple):
    """What is wrong with a run."""

    key: str
    """The option that it is about."""
    text: str
    """Follows the option's name in the message."""


@dataclass(frozen=True)
class Option:
    """One option of a backend, in the metadata of a field of the backend's class.

    The key of the option is the name of the field::

        step: int = field(default=0, metadata={OPTION: Option(checks.count, "Step N ...")})

    Two backends may have the same option; then it means the same for both.
    """

    check: Check
    help: str
    metavar: str = ""
    """What stands for the value in ``--help``; empty for a switch."""
    kind: type = str
    """The type of the value on the command line."""
    spelling: str = ""
    """The name on the command line, if it is not ``--KEY``."""
    flag: bool = True
    """The value that a switch on the command line gives."""
    commands: frozenset[str] = BOTH
    """The commands that take it."""
    in_files: bool = True
    """False: run files cannot have it."""
    selects: bool = False
    """If the backend of the command lacks the option, a run that has it and names no backend gets
    the first backend that takes it."""


@dataclass(frozen=True)
class BackendOptions:
    """A backend, chosen for a run, with its options.  Each backend is one subclass."""

    name: ClassVar[str]
    """As the user writes it; also in results and traces."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Older names that are still understood."""
    several_harts: ClassVar[bool] = False
    """True if the guest may have several harts.  QEMU does not record those."""
    live: ClassVar[bool] = True
    """True if the guest may run in real time, without being recorded."""
    runs_again: ClassVar[bool] = False
    """True if a session runs the guest again from its recording."""

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return the options that users can set, by key."""
        return {one.name: one.metadata[OPTION] for one in fields(cls) if OPTION in one.metadata}

    def problem(self, names: Names) -> Problem | None:
        """Return what is wrong with these options together; None if nothing is."""
        return None

    @property
    def waits_for_user(self) -> bool:
        """True if the run waits for a person, so that it has no time limit by default."""
        return False

    def to_json(self) -> dict[str, Any]:
        """Return the backend's name and the options that differ from their defaults."""
        document: dict[str, Any] = {"backend": self.name}
        for one in fields(self):
            value = getattr(self, one.name)
            if OPTION in one.metadata and (one.default is MISSING or value != one.default):
                document[one.name] = str(value) if isinstance(value, Path) else value
        return document


def same_option(kind: type[BackendOptions], key: str) -> Any:
    """Return a dataclass field for the option ``key`` of another backend."""
    (one,) = (one for one in fields(kind) if one.name == key)
    return field(default=one.default, metadata=one.metadata)


Backends = Mapping[str, type[BackendOptions]]
"""The backends that there are, by name."""


def find(backends: Backends, text: str) -> type[BackendOptions] | None:
    """Return the backend called ``text``, by its name or an older one; None if there is none."""
    for kind in backends.values():
        if text == kind.name or text in kind.aliases:
            return kind
    return None


def owners(backends: Backends, key: str) -> list[str]:
    """Return the names of the backends that have the option ``key``."""
    return [name for name, kind in backends.items() if key in kind.options()]


def all_options(backends: Backends) -> dict[str, Option]:
    """Return the options of all backends by key."""
    found: dict[str, Option] = {}
    for kind in backends.values():
        for key, declared in kind.options().items():
            found.setdefault(key, declared)
    return found
