"""The configurations of a sweep: one model on one machine with one cost table each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from hypervisor_model import policies
from hypervisor_model.costs import CostTable
from hypervisor_model.errors import ModelError
from hypervisor_model.exits import Exit
from hypervisor_model.policies import MachineModel
from hypervisor_model.policies.options import describe, parse

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One model, the machine that it is given, and the costs that its cycles are computed with.

    Values that are equal for the models make equal configurations, however the user wrote them.
    """

    policy: str
    """The name of the policy."""
    options: Mapping[str, str]
    """All options of the policy, with their values as ``--model`` takes them."""
    machine: Mapping[str, Any]
    """What replaces the machine of a trace, as the fields of ``MachineModel`` in JSON."""
    costs: Mapping[str, Any] = field(default_factory=lambda: CostTable().to_json())
    """The whole cost table, as :meth:`CostTable.to_json` gives it."""

    @property
    def model(self) -> str:
        """The model as ``--model`` takes it, every option with its value."""
        text = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.policy}:{text}" if text else self.policy

    @property
    def replayed(self) -> tuple[str, str]:
        """The model and its machine; configurations that agree in both need one replay."""
        return self.model, json.dumps(self.machine, sort_keys=True)


def configuration(
    model: str, options: Mapping[str, Any], machine: Mapping[str, Any], costs: Mapping[str, Any]
) -> Configuration:
    """Return the checked configuration.

    :param model: as ``--model`` takes it.
    :param options: further options of the policy.
    :raises UsageError: when there is no such policy or option, or it cannot have the value.
    :raises ModelError: when no machine or cost table can have one of the values.
    """
    policy, _, text = model.partition(":")
    kind = policies.POLICIES.get(policy)
    if kind is None:
        known = ", ".join(policies.POLICIES)
        raise ModelError(f"no policy is called {policy!r}; there are {known}")
    words = [*filter(None, [text]), *(f"{name}={_word(value)}" for name, value in options.items())]
    described = describe(parse(policy, kind.options, ",".join(words)))
    pairs = (pair.partition("=") for pair in described.split(",") if pair)
    MachineModel.from_json(machine)
    return Configuration(
        policy,
        _shared({name: value for name, _, value in pairs}),
        _shared(machine),
        _shared(_floats(cost_table(costs).to_json())),
    )


def _shared(table: Mapping[str, Any]) -> Json:
    """Return ``table``; equal tables share one object, since a sweep may have 200,000 of them."""
    return _read(json.dumps(table))


@lru_cache(maxsize=1000)
def _read(text: str) -> Json:
    table: Json = json.loads(text)
    return table


def _floats(costs: Json) -> Json:
    """Return ``costs`` with floating point numbers only: 1000 and 1000.0 are the same cost."""
    return {
        key: _floats(value) if isinstance(value, dict) else value if key == "name" else float(value)
        for key, value in costs.items()
    }


def _word(value: Any) -> str:
    """Return an option's value as ``--model`` takes it: TOML has ``true`` for ``on``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def cost_table(data: Mapping[str, Any]) -> CostTable:
    """Return the cost table in ``data``; costs that are left out have their defaults.

    :param data: as :meth:`CostTable.to_json` gives it.
    :raises ModelError: when a key is unknown, or its value is no cost.
    """
    known = {one.name for one in fields(CostTable)}
    changes: Json = {}
    for key, value in data.items():
        if key not in known:
            raise ModelError(f"costs: unknown cost {key!r}; known: {', '.join(sorted(known))}")
        if key == "name":
            if not isinstance(value, str):
                raise ModelError(f"costs: name cannot be {value!r}, it is a text")
            changes[key] = value
        elif key == "handling":
            changes[key] = {**CostTable().handling, **_handling(value)}
        else:
            changes[key] = _cost(key, value)
    return CostTable(**changes)


def _handling(data: Any) -> dict[Exit, float]:
    kinds = {kind.key: kind for kind in Exit}
    if not isinstance(data, Mapping):
        raise ModelError(f"costs: handling cannot be {data!r}, it has {', '.join(kinds)}")
    for key in data:
        if key not in kinds:
            raise ModelError(f"costs: handling has no {key!r}; known: {', '.join(kinds)}")
    return {kinds[key]: _cost(f"handling.{key}", value) for key, value in data.items()}


def _cost(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e15:
        raise ModelError(f"costs: {key} cannot be {value!r}, it is a number of cycles")
    return float(value)


def row_key(trace: str, machine: Json, one: Configuration, code: str) -> str:
    """Return what identifies a row: equal keys have equal counts.

    :param trace: the name and the checksum of the trace.
    :param machine: the whole machine of the models over that trace, as JSON.
    :param code: the digest of the models' code.
    """
    said = [trace, one.model, machine, dict(one.costs), code]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def distinct(found: Iterable[Configuration]) -> Iterator[Configuration]:
    """Yield each configuration once, in the order of ``found``."""
    seen = set()
    for one in found:
        key = (*one.replayed, json.dumps(one.costs, sort_keys=True))
        if key not in seen:
            seen.add(key)
            yield one
