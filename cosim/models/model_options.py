"""What a user says about the models: which ones, and on which machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cosim.errors import UsageError
from cosim.machine import interrupts
from cosim.models import machine_values
from cosim.models.pipeline import Pipeline
from cosim.models.result import Origin
from hypervisor_model import events, policies, precompile
from hypervisor_model.errors import ModelError
from hypervisor_model.policies import MachineModel, Policy, Stream
from hypervisor_model.policies.machine import MODELLED, replace_fields

DEFAULT_MODELS = ("native", "nested", "shadow", "lsp")


def split_models(texts: Iterable[str]) -> list[str]:
    """Return the models in ``--model`` options.

    Commas separate models and also the options of one model.  ``shadow:fill=whole,roots=4,lsp`` is
    two models: a part with ``=`` belongs to the model before it.
    """
    models: list[str] = []
    for text in texts:
        for part in filter(None, text.split(",")):
            if "=" in part and ":" not in part.split("=")[0] and models:
                models[-1] += f",{part}"
            else:
                models.append(part)
    return models


def parse_machine(text: str, option: str = "--machine") -> dict[str, Any]:
    """Return the fields of ``MachineModel`` in ``--machine``.

    ``gstage_page=2M,footprint_data=0,tlb.second=none`` is an example: a part of ``tlb`` is written
    as ``--tlb`` has it.

    :param text: what the user wrote.
    :param option: what messages call it.
    :raises UsageError: when ``text`` is malformed, or no machine can have a value.
    """
    fields: dict[str, Any] = {}
    parts: list[str] = []
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key.startswith("tlb.") and equals:
            parts.append(part.removeprefix("tlb."))
        elif key not in MODELLED or key == "tlb" or not equals:
            known = ", ".join(name for name in MODELLED if name != "tlb")
            raise UsageError(
                f"{option}: cannot read {part!r}; write KEY=VALUE with {known}, or tlb.PART"
            )
        elif key in fields:
            raise UsageError(f"{option}: {key} is given twice")
        else:
            fields[key] = machine_values.read(key, value)
            if key in machine_values.NUMBERS and isinstance(fields[key], str):
                raise UsageError(
                    f"{option}: {key} cannot be {value!r}; write a number, such as 8 or 2M"
                )
    if parts:
        fields["tlb"] = parse_tlb(",".join(parts), f"{option} tlb")
    try:
        MachineModel.from_json(fields)
    except ModelError as error:
        raise UsageError(f"{option}: {str(error).removeprefix('machine: ')}") from None
    return fields


_TLB: dict[str, tuple[str, ...]] = {
    "data": (),
    "fetch": (),
    "second": (),
    "superpages": (),
    "replacement": ("lru", "plru", "random"),
    "seed": (),
}
"""The parts of ``--tlb``, with the words that stay words."""


def parse_tlb(text: str, option: str = "--tlb") -> dict[str, Any]:
    """Return the fields of ``TlbConfig`` in ``--tlb``, such as ``data=8x4,second=none``.

    Making the machine checks that a TLB can have that shape.

    :param text: what the user wrote.
    :param option: what messages call it.
    :raises UsageError: when ``text`` is malformed.
    """
    fields: dict[str, Any] = {}
    for part in text.split(","):
        key, _, written = part.partition("=")
        value = machine_values.read(f"tlb.{key}", written)
        if key not in _TLB or (isinstance(value, str) and value not in _TLB[key]):
            raise UsageError(
                f"{option}: cannot read {part!r}; write data=SETSxWAYS, fetch=SETSxWAYS|none, "
                "second=SETSxWAYS|none, superpages=yes|no, replacement=lru|plru|random, seed=N, "
                "separated by commas"
            )
        fields[key] = value
    return fields


def make_models(
    models: Sequence[str], machine: MachineModel, stream: Stream | None = None
) -> dict[str, Policy]:
    """Return fresh models for ``machine`` by their name in a result.

    The name is that of the policy.  If two models have the same policy, it is their whole text.

    :raises UsageError: when a model or an option is unknown, or a model is named twice.
    """
    if len(set(models)) < len(models):
        raise UsageError(f"a model is named twice: {', '.join(models)}")
    names = [text.partition(":")[0] for text in models]
    return {
        name if names.count(name) == 1 else text: policies.make(text, machine, stream)
        for name, text in zip(names, models, strict=True)
    }


def make_pipeline(
    origin: Origin, models: Sequence[str] = (), machine: dict[str, Any] | None = None
) -> Pipeline:
    """Return fresh models for the run that ``origin`` describes.

    :param models: as :func:`split_models` gives them; empty for the default models.
    :param machine: replaces fields of the origin's machine.
    :raises UsageError: when a model, an option or the machine is not as it must be.
    """
    origin = replace(origin, machine=replace_fields(origin.machine, machine or {}))
    return Pipeline(origin, make_models(models or DEFAULT_MODELS, origin.machine, origin.stream))


def compile_models(origin: Origin, models: Sequence[str] = ()) -> None:
    """Compile the models' kernels, or load them from the cache, before they are needed.

    The first time takes up to half a minute.  It must not happen between two stops of a guest.

    :raises UsageError: when a model or an option is not as it must be.
    """
    pipeline = make_pipeline(origin, models)
    compile_missing(models or DEFAULT_MODELS)
    batch = events.empty(1)
    batch["kind"] = events.Kind.MARK
    pipeline.feed(batch)


def compile_missing(models: Sequence[str]) -> None:
    """Compile in separate processes what is not in the cache yet, if that is more than one model.

    This process would compile one model after the other.  Whatever goes wrong in the others, it
    compiles what is missing when it uses it.
    """
    cold = precompile.missing(models)
    if len(cold) > 1:
        # -P: a folder that happens to be called as a package here is not the package.
        command = [sys.executable, "-P", "-m", precompile.__name__, *cold]
        # It cannot be started if this user may not execute the interpreter, for example.
        with contextlib.suppress(OSError):
            _run_alone(command)


def _run_alone(command: Sequence[str]) -> None:
    """Run ``command`` without our terminal; an interruption ends it and its processes, too.

    :raises OSError: when it cannot be started.
    """
    nowhere = subprocess.DEVNULL
    with interrupts.deferred():
        started = subprocess.Popen(
            command, stdin=nowhere, stdout=nowhere, stderr=nowhere, process_group=0
        )
        try:
            with interrupts.allowed():
                started.wait()
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
            raise
