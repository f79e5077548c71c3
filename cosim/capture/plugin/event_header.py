"""The event record and its vocabulary as C: ``event.h``, which the plugin's code includes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypervisor_model.events import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    FIELDS,
    SIZE_MORE,
    VOCABULARY,
    Content,
    Field,
    record,
)

NAME = "event.h"


def header(fields: Sequence[Field] = FIELDS) -> str:
    """Return the text of ``event.h``: a struct of ``fields``, and every enumeration.

    An enumeration ``PteOp`` becomes ``enum pte_op`` with the constants ``PTE_OP_STORE`` and so on.
    """
    lines = [
        "/* The event record and its vocabulary, generated from hypervisor_model/events.py. */",
        "#ifndef COSIM_EVENT_H",
        "#define COSIM_EVENT_H",
        "",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        "struct event {",
        *(f"    {field.type}_t {field.name}; /* {_comment(field)} */" for field in fields),
        "};",
    ]
    layout = record(fields)
    assert layout.fields is not None
    for field in fields:
        condition = f"offsetof(struct event, {field.name}) == {layout.fields[field.name][1]}"
        lines.append(f'_Static_assert({condition}, "{field.name} lies where Python has it");')
    size = f"sizeof(struct event) == {layout.itemsize}"
    lines += [f'_Static_assert({size}, "the record is as long as in Python");', ""]
    for enumeration in VOCABULARY:
        tag = re.sub(r"(?<!^)(?=[A-Z])", "_", enumeration.__name__)
        lines.append(f"enum {tag.lower()} {{")
        # Names that share a number are members, too.
        for name, member in enumeration.__members__.items():
            lines.append(f"    {tag.upper()}_{name} = {int(member)},")
        lines.append("};")
    for name, bit in (("ADUE", ENVCFG_ADUE), ("PBMTE", ENVCFG_PBMTE)):
        lines.append(f"#define ENVCFG_{name} {bit:#x}ull")
    lines += [f"enum {{ SIZE_MORE = {SIZE_MORE} }}; /* `size`: so many bytes, or more */", ""]
    return "\n".join([*lines, "#endif", ""])


def _comment(field: Field) -> str:
    return field.meaning + ("; -1 if unknown" if field.content is Content.COUNT else "")
