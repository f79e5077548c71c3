"""The values of a modelled machine as people write them: ``128x8``, ``none``, ``2M``, ``yes``.

``--machine``, ``--tlb``, run files and sweep files all read their texts here.
"""

from __future__ import annotations

import re
from typing import Any

NUMBERS = ("walk_cache_ways", "gstage_page", "footprint_data", "footprint_code")
"""Fields of a machine that are numbers."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
_MAY_BE_MISSING = ("tlb.fetch", "tlb.second")


def read(key: str, value: Any) -> Any:
    """Return the value of a machine's field as ``MachineModel.from_json`` takes it.

    For example, ``read("tlb.second", "none")`` is None and ``read("gstage_page", "2M")`` is
    2097152.  A value that is no text stays as it is, and so does a text that says nothing.  No
    machine can be made with such a text.

    :param key: of the field, as ``--machine`` has it.
    :param value: what the user wrote.
    """
    if not isinstance(value, str):
        return value
    if key in NUMBERS:
        number = re.fullmatch(r"(\d{1,12})([KM]?)", value, re.ASCII)
        return int(number[1]) * _UNITS[number[2]] if number else value
    if key in ("tlb.data", *_MAY_BE_MISSING):
        if value == "none" and key in _MAY_BE_MISSING:
            return None
        shape = re.fullmatch(r"(\d{1,9})x(\d{1,9})", value, re.ASCII)
        return [int(shape[1]), int(shape[2])] if shape else value
    if key == "tlb.superpages":
        return {"yes": True, "no": False}.get(value, value)
    if key == "tlb.seed" and value.isascii() and value.isdecimal():
        return int(value)
    return value
