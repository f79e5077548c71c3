"""How the models are compiled.

Hot code of this package is a set of plain functions over NumPy arrays, compiled by numba and
cached on disk.  One rule keeps it readable and exact: **every integer inside a kernel is int64**.
A 64-bit pattern with the top bit set (a high-half virtual address, a NAPOT entry) is the negative
number with the same bits, so shifts right of a virtual address sign-extend for free and numba
never promotes a uint64/int64 mix to float.  Mask after every right shift of an entry.
:func:`signed` and :func:`unsigned` convert at the border to Python integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

_SIGN = 1 << 63
_MASK = (1 << 64) - 1


def kernel(function: F) -> F:
    """Compile ``function`` in numba's nopython mode, cached beside the source."""
    return cast(F, numba.njit(cache=True, error_model="numpy")(function))


def signed(value: int) -> int:
    """The int64 with the bits of the unsigned 64-bit ``value``."""
    return ((value & _MASK) ^ _SIGN) - _SIGN


def unsigned(value: int) -> int:
    """The unsigned 64-bit integer with the bits of the int64 ``value``."""
    return int(value) & _MASK
