"""Which instructions are single-stepped so that their accesses are seen."""

from __future__ import annotations

from dataclasses import dataclass

_WITHOUT_END = -1


@dataclass(frozen=True)
class Stepping:
    """What the user asks for: ``--step N`` or ``--step-all``.

    ``after`` instructions are stepped behind each fence, ``satp`` write and table store.  With
    ``all`` the whole region is stepped.
    """

    after: int = 0
    all: bool = False


class Countdown:
    """How many of the next instructions are still to be stepped."""

    def __init__(self, stepping: Stepping) -> None:
        self._stepping = stepping
        self._left = 0

    def __bool__(self) -> bool:
        return self._left != 0

    def begin(self) -> None:
        """Count from the region's beginning."""
        self._left = _WITHOUT_END if self._stepping.all else 0

    def spend(self) -> None:
        """One instruction has executed."""
        if self._left > 0:
            self._left -= 1

    def renew(self) -> None:
        """Count from the start again: a fence, ``satp`` write or table store has executed."""
        if self._left != _WITHOUT_END:
            self._left = self._stepping.after
