"""A check for a terminal: a few lines for each finding."""

from __future__ import annotations

from typing import Any

from rich.text import Text

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}


def render(document: dict[str, Any]) -> Text:
    """Return the document as text.  Nothing in it is read as markup."""
    text = Text()
    for row in [*document["findings"], *document["legal"]]:
        _finding(text, row)
    _summary(text, document)
    return text


def _place(symbol: str | None, source: str | None, pc: int, instruction: str | None = None) -> str:
    named = f"{pc:#x} {symbol}" if symbol else f"{pc:#x}"
    named = f"{named}: {instruction}" if instruction else named
    return f"{named} ({source})" if source else named


def _finding(text: Text, row: dict[str, Any]) -> None:
    store, access, fence = row["store"], row["access"], row["fence"]
    text.append(row["severity"], style=_STYLES[row["severity"]])
    text.append(f": {row['kind']} at 0x{row['va']:x}: {row['effect']}\n")
    what = store["register"] or f"level {store['level']} entry {store['entry']:#x}"
    instruction = row["store_instruction"]
    place = _place(row["store_symbol"], row["store_source"], row["store_pc"], instruction)
    text.append(f"  store   {place}\n")
    text.append(f"          {what}: {store['old']:#x} -> {store['new']:#x}\n")
    for frame in (row["call_chain"] or ())[1:]:
        text.append(f"  from    {_place(frame['symbol'], frame['source'], frame['pc'])}\n")
    kind = access["kind"] or "use"
    place = _place(access["symbol"], access["source"], access["pc"], access["instruction"])
    text.append(f"  {kind:7} {place}")
    text.append(f" in {access['privilege']}-mode on hart {access['hart']}\n")
    text.append(f"  fence   {fence['text']}")
    if fence["executed"] is not None:
        text.append(f": {_instruction(fence['executed'])}")
    text.append(f"\n  {row['section']}\n")
    text.append(f"  {_count(row['stores'], 'store')}, {_count(row['accesses'], 'access')}\n\n")


def _instruction(seen: dict[str, Any]) -> str:
    operands = [f"va {seen['va']:#x}" if seen["va"] is not None else None]
    if "caller" in seen and seen["va"] is not None:
        operands.append(f"size {seen['size']:#x}")
    operands.append(f"asid {seen['asid']}" if seen["asid"] is not None else None)
    named = ", ".join(filter(None, operands)) or "everything"
    harts = ""
    if "caller" in seen:
        harts = f" on hart {seen['hart']}, called for by hart {seen['caller']},"
    place = _place(seen["symbol"], seen["source"], seen["pc"])
    return f"{seen['instruction']} ({named}){harts} at {place}"


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _summary(text: Text, document: dict[str, Any]) -> None:
    findings, checked = document["findings"], document["checked"]
    if findings:
        text.append(f"{_count(len(findings), 'store site')} owed a fence: ")
        text.append(f"{checked['hazards']:,} of {checked['accesses']:,} accesses depend on it.\n")
    else:
        text.append(f"No access of {checked['accesses']:,} depends on a missing fence.\n")
    for row in document["suppressed"]:
        named = row["store_symbol"] or f"{row['store_pc']:#x}"
        text.append(f"Suppressed: {row['kind']} at {named}: {row['reason']}\n")
    for unused in document["unused_suppressions"]:
        text.append(f"Not needed any more: the suppression of {unused}\n")
    if not document["complete"]:
        text.append(f"Incomplete: {document['incomplete_because']}\n")
    text.append("Not seen by this check:\n")
    for sentence in document["hidden"]:
        text.append(f"- {sentence}\n")
