"""A check for other tools: SARIF 2.1.0 for code hosts, JUnit XML for CI."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from cosim.check.document import KINDS, SECTIONS

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_ILLEGAL_XML = {code: "?" for code in range(32) if chr(code) not in "\t\n\r"}


def sarif(document: dict[str, Any]) -> str:
    """Return the document as SARIF."""
    rows = [*document["findings"], *document["legal"], *document["suppressed"]]
    rules = [{"id": kind, "shortDescription": {"text": SECTIONS[kind]}} for kind in KINDS]
    run = {
        "tool": {"driver": {"name": "cosim check", "rules": rules}},
        "results": [_result(row) for row in rows],
        "invocations": [{"executionSuccessful": bool(document["complete"])}],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(row: dict[str, Any]) -> dict[str, Any]:
    location = _location(row["store_symbol"], row["store_source"], row["store_pc"])
    result: dict[str, Any] = {
        "ruleId": row["kind"],
        "level": row["severity"],
        "message": {"text": _message(row)},
        "locations": [location],
    }
    if row["call_chain"]:
        result["stacks"] = [
            {
                "message": {"text": "call chain of the store"},
                "frames": [
                    {"location": _location(frame["symbol"], frame["source"], frame["pc"])}
                    for frame in row["call_chain"]
                ],
            }
        ]
    if "reason" in row:
        result["suppressions"] = [{"kind": "external", "justification": row["reason"]}]
    return result


def _location(symbol: str | None, source: str | None, pc: int) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": symbol or f"{pc:#x}"}]}
    if source:
        file, _, line = source.rpartition(":")
        location["physicalLocation"] = {
            "artifactLocation": {"uri": file},
            "region": {"startLine": max(int(line), 1)},
        }
    else:
        location["physicalLocation"] = {"address": {"absoluteAddress": pc}}
    return location


def junit(document: dict[str, Any]) -> str:
    """Return the document as JUnit XML: a test case for each finding, or one that passed."""
    findings, suppressed = document["findings"], document["suppressed"]
    suite = ElementTree.Element(
        "testsuite",
        name="cosim check",
        tests=str(max(len(findings) + len(suppressed), 1)),
        failures=str(len(findings)),
        errors="0",
        skipped=str(len(suppressed)),
    )
    for row in [*findings, *suppressed]:
        name = row["store_symbol"] or f"{row['store_pc']:#x}"
        case = ElementTree.SubElement(suite, "testcase", classname=row["kind"], name=_xml(name))
        if "reason" in row:
            ElementTree.SubElement(case, "skipped", message=_xml(row["reason"]))
        else:
            ElementTree.SubElement(
                case, "failure", type=row["kind"], message=_xml(_message(row))
            ).text = _xml(row["section"])
    if not findings and not suppressed:
        ElementTree.SubElement(suite, "testcase", classname="fences", name="no missing fence")
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _message(row: dict[str, Any]) -> str:
    return f"{row['kind']} at {row['va']:#x}: {row['effect']}; {row['fence']['text']}"


def _xml(text: str) -> str:
    return text.translate(_ILLEGAL_XML)
