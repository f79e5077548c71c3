"""The scenarios of ``micro``, read from its own table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).resolve().parent / "scenario_list.c"
_ROW = re.compile(r'\{"([\w-]+)", ([01]), \w+, \w+, (?:"([\w-]+)"|0), (\d)\},')


@dataclass(frozen=True)
class Scenario:
    """One scenario."""

    name: str
    in_all: bool
    """True if ``scenario=all`` runs it."""
    seeded_bug: str | None
    """The kind of finding that ``cosim check`` must give; None if it must give none."""
    harts: int
    """Harts that it needs."""


GUESTS = ("micro", "micro-m")
"""The guests that run them."""


def problem(text: str) -> str | None:
    """Return what is wrong with scenarios separated by commas; None if each is there."""
    known = ["all", *(one.name for one in scenarios())]
    for name in text.split(","):
        if name not in known:
            return f"there is no {name!r}; scenarios: {', '.join(known)}"
    return None


def harts_for(text: str) -> int:
    """Return how many harts scenarios separated by commas need; unknown ones need one."""
    wanted = text.split(",")
    return max([one.harts for one in scenarios() if one.name in wanted], default=1)


def scenarios() -> list[Scenario]:
    """Return the scenarios in the order in which the guest runs them."""
    rows = _ROW.findall(_TABLE.read_text(encoding="utf-8"))
    return [
        Scenario(name, in_all == "1", bug or None, int(harts)) for name, in_all, bug, harts in rows
    ]
