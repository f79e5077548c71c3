"""How numbers read in texts, in tables and at axes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

PERCENT = "\u00a0%"
"""The sign after a number; a line never breaks before it."""

_WIDE = 50
"""A bar that is this many times shorter than the longest is too short to read."""

_SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float) -> str:
    """Return whole numbers in full, others with four digits.

    A number that is only rounded to a whole one shows it: 14.998 is 15.00.
    """
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    text = f"{value:,.4g}"
    return text if "." in text or "e" in text else f"{value:#,.4g}".rstrip(".")


def percent(share: float, places: int | None = None) -> str:
    """Return a share of 1 as a percentage.

    :param places: decimal places; by default one at most, or two digits below one per cent.
    """
    value = 100 * share
    if places is not None:
        text = f"{value:.{places}f}"
    else:
        text = _two_digits(value) if abs(value) < 1 else f"{value:.1f}".removesuffix(".0")
    return f"{text}{PERCENT}"


def unbroken(text: str) -> str:
    """Return ``text`` with each per cent sign kept on the line of its number."""
    return re.sub(r"(?<=\d) %(?!\w)", PERCENT, text)


def ratio(value: float) -> str:
    """Return a quotient with two decimal places, or two digits if it is small."""
    return f"{value:.2f}" if abs(value) >= 0.1 else _two_digits(value)


def _two_digits(value: float) -> str:
    """Return ``value`` without an exponent."""
    if abs(value) < 1e-9:
        return "0"
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"


def short(value: float, largest: float) -> str:
    """Return ``value`` for a tick of an axis up to ``largest``: 50k on one up to 200,000."""
    for size, suffix in _SUFFIXES:
        if largest >= max(size, 10_000):
            return f"{value / size:.4g}{suffix}" if value else "0"
    return f"{value:,.4g}" if abs(value) < 1000 else number(value)


def scaled(value: float) -> str:
    """Return a large number with three digits: 12.3 M."""
    for size, suffix in _SUFFIXES:
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)}\u00a0{suffix}"
    return number(round(value))


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def is_wide(values: Iterable[float]) -> bool:
    """Return True if an axis that begins at 0 is too short for the smallest of ``values``."""
    distinct = set(values)
    return bool(distinct) and min(distinct) > 0 and max(distinct) >= _WIDE * min(distinct)


def is_geometric(values: Iterable[float]) -> bool:
    """Return True if ``values`` are powers of two, as window, TLB and footprint sizes are."""
    distinct = set(values)
    return len(distinct) > 2 and all(v > 0 and math.log2(v).is_integer() for v in distinct)
