"""How the user spells an option: ``--from`` on the command line, ``from`` in a run file.

A message names an option by the spelling that its reader typed.  A run carries its spelling from
where it was asked for to the session that reports on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

_SPELLINGS = {"guest": "GUEST", "models": "--model", "console": "--expect"}
"""Options whose spelling on the command line does not follow from their key."""


class Names(Protocol):
    """The spelling of options, by their key in a run file."""

    def option(self, key: str) -> str:
        """Return the name of the option ``key``."""
        ...

    def setting(self, key: str, value: Any) -> str:
        """Return the option ``key`` with ``value``, as the user would write it."""
        ...


class CommandLine:
    """Names on the command line.

    :param spellings: the spelling of options for which it is not ``--KEY``.
    """

    def __init__(self, spellings: Mapping[str, str] | None = None) -> None:
        self._spellings = {**_SPELLINGS, **(spellings or {})}

    def option(self, key: str) -> str:
        """Return the name of the option ``key``."""
        return self._spellings.get(key, f"--{key.replace('_', '-')}")

    def setting(self, key: str, value: Any) -> str:
        """Return the option ``key`` with ``value``; a switch has no value."""
        name = self.option(key)
        return name if isinstance(value, bool) else f"{name} {value}"


class InFile:
    """Names in a run file, which are the keys."""

    def option(self, key: str) -> str:
        """Return ``key``."""
        return key

    def setting(self, key: str, value: Any) -> str:
        """Return ``key = value`` as TOML has it."""
        shown = str(value).lower() if isinstance(value, bool) else value
        return f"{key} = {shown}"


COMMAND_LINE = CommandLine()
IN_FILE = InFile()
