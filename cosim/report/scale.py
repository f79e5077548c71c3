"""Axes: where a value lies, which values get a tick, how a number reads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

PERCENT = "\u00a0%"
"""The sign after a number, on the same line."""

_WIDE = 50
"""A bar this many times shorter than the longest is a hair."""

_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Scale:
    """Maps ``low``..``high`` to the pixels ``start``..``end``; by logarithms if ``log``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)


def ticks(values: Iterable[float], about: int = 5) -> list[float]:
    """Round values around all ``values``, with at most ``about`` steps between these.

    Steps are 1, 2 or 5 times a power of ten, and no fraction where all are whole numbers.
    """
    values = list(values)
    low, high = min(values), max(values)
    if high - low < 1e-300:
        high = low + max(1.0, abs(low) / 1000)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    if all(value == int(value) for value in values):
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Through text: 3 * 0.1 is not 0.3.
    return [float(f"{step * n:.15g}") for n in range(first, last + 1)]


def of_values(
    values: Iterable[float], about: int, *, log: bool
) -> tuple[tuple[float, float], list[float]]:
    """The ends and the ticks of an axis of ``values``, from 0 where it is not logarithmic."""
    if log:
        return log_ticks(values, about + 3)
    found = ticks([0.0, *values], about)
    return (found[0], found[-1]), found


def log_ticks(values: Iterable[float], about: int) -> tuple[tuple[float, float], list[float]]:
    """The ends of a logarithmic axis around ``values`` (all above 0), and its ticks.

    Both are 1, 2 or 5 times a power of ten; ticks only powers of ten where there are many.
    """
    values = list(values)
    low = math.floor(math.log10(min(values))) - 1
    high = math.ceil(math.log10(max(values))) + 1
    # Through text: 10.0 ** -3 and its like are not always the nearest number.
    steps = [float(f"{m}e{power}") for power in range(low, high + 1) for m in (1, 2, 5)]
    first = max(step for step in steps if step <= min(values))
    last = min(step for step in steps if step >= max(values) and step > first)
    inside = [step for step in steps if first <= step <= last]
    if len(inside) > about:
        inside = [step for step in inside if f"{step:e}".startswith("1")]
    return (first, last), inside


def number(value: float) -> str:
    """``value`` for a table: whole numbers in full, others to four digits.

    What is only rounded to a whole number shows it: 14.998 is 15.00.
    """
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    text = f"{value:,.4g}"
    return text if "." in text or "e" in text else f"{value:#,.4g}".rstrip(".")


def percent(value: float) -> str:
    """A share of 1 as a percentage, to one place, or to two digits where it is small."""
    share = 100 * value
    number = _two_digits(share) if abs(share) < 1 else f"{share:.1f}".removesuffix(".0")
    return f"{number}{PERCENT}"


def unbroken(text: str) -> str:
    """``text`` with every per cent sign kept on the line of its number."""
    return re.sub(r"(?<=\d) %(?!\w)", PERCENT, text)


def ratio(value: float) -> str:
    """A quotient, to two places, or to two digits where it is small."""
    return f"{value:.2f}" if abs(value) >= 0.1 else _two_digits(value)


def _two_digits(value: float) -> str:
    """Without an exponent, down to where nobody wants to read it."""
    if abs(value) < 1e-9:
        return "0"
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"


def short(value: float, largest: float) -> str:
    """``value`` for a tick of an axis up to ``largest``: of 0 to 200000, 50000 is 50k."""
    for size, suffix in _SUFFIXES:
        if largest >= max(size, 10_000):
            return f"{value / size:.4g}{suffix}" if value else "0"
    return f"{value:,.4g}" if abs(value) < 1000 else number(value)


def is_wide(values: Iterable[float]) -> bool:
    """Whether the smallest of ``values`` could not be read from an axis that begins at 0."""
    distinct = set(values)
    return bool(distinct) and min(distinct) > 0 and max(distinct) >= _WIDE * min(distinct)


def is_geometric(values: Iterable[float]) -> bool:
    """Whether ``values`` are powers of two, as window, TLB and footprint sizes are."""
    distinct = set(values)
    return len(distinct) > 2 and all(v > 0 and math.log2(v).is_integer() for v in distinct)
