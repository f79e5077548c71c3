"""Matrices of TOML files: tables whose values are lists, of which every combination is meant.

Run files and sweep files say a matrix in the same way::

    [matrix]
    append = ["no4lvl", "no5lvl"]
    machine.tlb.data = [[64, 2], [128, 4]]

The keys of a matrix are those of the table that it varies.  A value may be a table, which sets
several keys together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple, NoReturn

from cosim.run.toml_lines import Place

Keys = tuple[str, ...]
Refuse = Callable[[Place, str], NoReturn]
"""Reports what is wrong at a place of the file."""


class Leaf(NamedTuple):
    """A value, and where it stands in the file."""

    value: Any
    place: Place


Axes = dict[Keys, Leaf]
"""The list of values of each key."""


def leaves(value: Any, place: Place = (), keys: Keys = ()) -> Iterator[tuple[Keys, Leaf]]:
    """Yield every value below tables, by its keys; an empty table counts as a value."""
    if isinstance(value, dict) and (value or not keys):
        for key, item in value.items():
            yield from leaves(item, (*place, key), (*keys, key))
    else:
        yield keys, Leaf(value, place)


def merged(first: Mapping[Keys, Leaf], second: Mapping[Keys, Leaf]) -> dict[Keys, Leaf]:
    """Return ``first`` with what ``second`` sets; a filled table replaces an empty one."""
    kept = {
        keys: leaf
        for keys, leaf in first.items()
        if leaf.value != {} or not any(other[: len(keys)] == keys for other in second)
    }
    return {**kept, **second}


def put(table: dict[str, Any], keys: Keys, value: Any) -> None:
    """Set what ``keys`` lead to in ``table``."""
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    if keys:
        table[keys[-1]] = value


def axes(matrix: Any, place: Place, refuse: Refuse) -> Axes:
    """Return the axes in the table ``matrix``, which stands at ``place``."""
    if not isinstance(matrix, dict):
        refuse(place, "must be a table [matrix]")
    found = dict(leaves(matrix, place))
    for keys, leaf in found.items():
        if leaf.value == []:
            refuse(leaf.place, "is empty; give one value at least, or leave the key out")
        if not isinstance(leaf.value, list):
            written = json.dumps([leaf.value], default=str)
            problem = f"is {leaf.value!r}, not a list of values; write {written}"
            refuse(leaf.place, problem + _elsewhere(keys, place))
    return found


def _elsewhere(keys: Keys, place: Place) -> str:
    """Return the table that takes ``keys`` with a single value, as the end of a message.

    :param place: of the matrix.
    """
    if keys[0] != "machine" and (keys[0] != "costs" or "sweep" not in place):
        return ""
    table = ".".join(part for part in (*place[:-1], keys[0]) if isinstance(part, str))
    return f", or put it into [{table}]"


def size(found: Axes) -> int:
    """Return how many combinations the axes have."""
    return prod(len(axis.value) for axis in found.values())


def points(found: Axes) -> Iterator[dict[Keys, Leaf]]:
    """Yield every combination: one value of each axis."""
    for values in product(*(axis.value for axis in found.values())):
        yield {
            keys: Leaf(value, axis.place)
            for (keys, axis), value in zip(found.items(), values, strict=True)
        }


def settings(point: Mapping[Keys, Leaf]) -> dict[Keys, Leaf]:
    """Return what a combination sets; a value that is a table sets each of its keys."""
    found: dict[Keys, Leaf] = {}
    for keys, leaf in point.items():
        found.update(leaves(leaf.value, leaf.place, keys))
    return found
