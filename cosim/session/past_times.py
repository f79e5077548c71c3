"""How long runs took before, so that the same run can say how long it will take now.

The cache folder holds one small JSON file.  It is a help only: if it cannot be read or written,
nothing is estimated and nothing fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from pathlib import Path

from cosim import paths
from cosim.errors import CosimError
from cosim.files import read_regular, write_atomically
from cosim.run.plan import Plan

_NAME = "past-times.json"
_MOST_RUNS = 500
"""The oldest entries make room for new ones."""
_MOST_BYTES = 1 << 20


class PastTimes:
    """How many seconds the parts of one run took when it last went through.

    A run is the same if its machine, guest, dialogue, region and backend are.

    :param plan: the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._key = _key(plan)
        self._known: dict[str, float | None] = {}
        """What was read, because it is asked for a few times a second."""

    def last(self, part: str) -> float | None:
        """Return the seconds that ``part`` took the last time; None if that is not known."""
        seconds = _read().get(self._key, {}).get(part)
        return _duration(seconds)

    def left(self, part: str, passed: float) -> tuple[float | None, str]:
        """Return the seconds that ``part`` will still take, or None and why that is not known.

        :param passed: the seconds that it has taken so far.
        """
        if part not in self._known:
            self._known[part] = self.last(part)
        last = self._known[part]
        if last is None:
            return None, "no earlier run to estimate from"
        if passed > last:
            return None, f"the last time it took {last:.0f} s"
        return last - passed, ""

    def keep(self, part: str, seconds: float) -> None:
        """Remember that ``part`` took so many seconds."""
        runs = _read()
        times = runs.pop(self._key, {})
        runs[self._key] = times | {part: round(seconds, 2)}
        newest = dict(list(runs.items())[-_MOST_RUNS:])
        with contextlib.suppress(CosimError, OSError):
            file = _file()
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(newest, indent=0))


def _file() -> Path:
    return paths.cache() / _NAME


def _key(plan: Plan) -> str:
    same = (
        plan.machine,
        plan.console,
        plan.begin.text,
        plan.end.text,
        plan.backend.to_json(),
        plan.stop_on_divergence,
        plan.qemu.version,
    )
    return hashlib.sha256(repr(same).encode()).hexdigest()[:16]


def _read() -> dict[str, dict[str, object]]:
    try:
        runs = json.loads(read_regular(_file(), _MOST_BYTES))
    except (CosimError, OSError, ValueError, RecursionError):
        return {}
    if not isinstance(runs, dict):
        return {}
    return {key: times for key, times in runs.items() if isinstance(times, dict)}


def _duration(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < math.inf else None
