"""Measure each thing once: traces and counts are kept, and found again by what they are of.

::

    DIR/traces/NAME-KEY/    the capture of a guest; `cosim replay` and the others read it too
    DIR/counts/KEY.json     the counts of one model over it
    DIR/logs/               of captures that failed

A key is a digest of everything that the content depends on: the run as it was asked for, the
guest's files, QEMU, the CPU, and the code that makes it (:mod:`cosim.run.code_digest`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import guest
from cosim.errors import StorageError
from cosim.files import write_atomically
from cosim.machine import tools
from cosim.models.model_options import make_pipeline
from cosim.output import Step
from cosim.reproduce.measurement import Measurement
from cosim.reproduce.timeline import Timeline, replay
from cosim.run.code_digest import digest
from cosim.run.run_spec import RunSpec
from cosim.session import execution
from cosim.session.protocol import Progress, View, Watchers
from cosim.trace.reader import TraceReader
from hypervisor_model.policies import MachineModel
from hypervisor_model.policies.machine import MODELLED

Json = dict[str, Any]

_CAPTURING = (
    "cosim.session.backends",
    "cosim.session.execution",
    "cosim.capture",
    "cosim.trace.writer",
    MachineModel.__module__,
)
_AFTER_THE_EVENTS = (
    "cosim.commands",
    "cosim.models",
    "cosim.output",
    "cosim.report",
    "cosim.reproduce",
    "cosim.session.forecast",
    "cosim.session.past_times",
    "cosim.trace.describe",
    "hypervisor_model.policies",
    "hypervisor_model.tlb",
    "hypervisor_model.walk",
)
"""What a capture depends on, and what only works on captured events or tells the user of them."""

_MODELLING = (
    "hypervisor_model.policies",
    "cosim.models.model_options",
    "cosim.models.comparison",
    "cosim.models.counts",
    "cosim.models.pipeline",
    "cosim.models.result",
    "cosim.trace.reader",
    "cosim.reproduce.timeline",
)
_NOT_MODELLING = (
    "cosim.capture",
    "cosim.kernel",
    "cosim.machine",
    "cosim.models.address_spaces",
    "cosim.models.attribution",
    "cosim.models.derived",
    "cosim.models.profile",
    "cosim.output",
    "cosim.report",
    "cosim.run",
    "cosim.session",
)
"""What the counts of a model over a capture depend on, and what they do not."""


def _silent(done: float, total: float | None = None, text: str | None = None) -> None:
    """Tell nobody."""


class Lab:
    """A folder of captures and counts.

    :raises StorageError: when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            for name in ("traces", "counts"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error

    def measure(self, measurement: Measurement, step: Step = _silent) -> Timeline:
        """Return the counts of ``measurement``; nothing is measured twice.

        :param step: is told how far it is, from 0 to 1.
        :raises CosimError: when the guest cannot be fetched, built, run or captured.
        """
        found = {model: self._read(measurement, model) for model in measurement.models}
        missing = [model for model, timeline in found.items() if timeline is None]
        if missing:
            spec = measurement.spec
            trace = TraceReader(self.trace(spec, step))
            pipeline = make_pipeline(trace.origin, missing, modelled(measurement.machine))
            timeline = replay(
                trace,
                pipeline,
                lambda done, total=None, _=None: step(
                    0.5 + 0.5 * done / (total or 1), 1, f"{spec.name}: models"
                ),
            )
            for model in missing:
                # A result names a model after its policy if no other model has that policy.
                name = model if model in timeline.end.policies else model.partition(":")[0]
                found[model] = timeline.only(name, model)
                self._write(measurement, model, timeline.only(name, model))
        return Timeline.merged([part for part in found.values() if part is not None])

    def is_measured(self, measurement: Measurement) -> bool:
        """Return True if :meth:`measure` would have nothing to do."""
        return all(self._counts_file(measurement, model).exists() for model in measurement.models)

    def drop_leftovers(self) -> None:
        """Remove what a killed process left of captures.

        No other process may be measuring in the folder.
        """
        for part in (self.folder / "traces").glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def key(self, measurement: Measurement) -> str:
        """Return a text that is equal for measurements of the same."""
        files = [self._counts_file(measurement, model).name for model in measurement.models]
        return " ".join(files)

    def trace(self, spec: RunSpec, step: Step = _silent) -> Path:
        """Return the folder with the capture of ``spec``; capture it if it is not there.

        :raises CosimError: when the guest cannot be fetched, built, run or captured.
        """
        key = _trace_key(spec)
        folder = self.folder / "traces" / f"{spec.name}-{key[:12]}"
        if folder.is_dir():
            return folder
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        logs = Path(tempfile.mkdtemp(prefix="cosim-"))
        try:
            watchers = Watchers(view=_view(spec, step))
            outcome = execution.capture(spec, logs, part, watchers)
            if outcome.error is not None:
                raise outcome.error
            part.rename(folder)
        except BaseException:
            kept = self.folder / "logs" / spec.name
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(logs, kept, ignore=shutil.ignore_patterns("*.bin", "ram*", "*.sock"))
            raise
        finally:
            shutil.rmtree(logs, ignore_errors=True)
            shutil.rmtree(part, ignore_errors=True)
        return folder

    def _counts_file(self, measurement: Measurement, model: str) -> Path:
        key = {
            "trace": _trace_key(measurement.spec),
            "model": model,
            "machine": modelled(measurement.machine),
            "tool": digest(_MODELLING, _NOT_MODELLING),
        }
        return self.folder / "counts" / f"{_digest(key)[:24]}.json"

    def _read(self, measurement: Measurement, model: str) -> Timeline | None:
        try:
            return Timeline.from_json(json.loads(self._counts_file(measurement, model).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            # A crash cut the file short; measure again.
            return None

    def _write(self, measurement: Measurement, model: str, timeline: Timeline) -> None:
        about = {
            "run": measurement.spec.to_json(),
            "model": model,
            "machine": modelled(measurement.machine),
        }
        write_atomically(
            self._counts_file(measurement, model),
            json.dumps({"of": about, **timeline.to_json()}, indent=1),
        )


def modelled(machine: Mapping[str, Any]) -> Json:
    """Return the modelled hardware and hypervisor: these fields, and defaults for all others.

    It is complete, so that it makes no difference if a machine names a default or leaves it out,
    or what the trace was told when it was captured.
    """
    whole = MachineModel.from_json(machine).to_json()
    return {name: whole[name] for name in MODELLED}


def _view(spec: RunSpec, step: Step) -> View:
    def view(progress: Progress) -> None:
        step(0, 1, f"{spec.name}: {progress.phase}, {progress.events:,} events")

    return view


def _trace_key(spec: RunSpec) -> str:
    asked = spec.to_json()
    # The name changes nothing; the models and their machine work on the captured events.
    for field in ("name", "models", "machine", "trace"):
        del asked[field]
    emulator = tools.qemu()
    made = None if spec.guest is None else _guest(spec.guest)
    return _digest(
        {
            "run": asked,
            "guest": made,
            "qemu": [*emulator.version, spec.cpu or tools.default_cpu(emulator)],
            "tool": digest(_CAPTURING, _AFTER_THE_EVENTS),
        }
    )


@cache
def _guest(name: str) -> Json:
    made = guest.load(name)
    return {"checksums": made.checksums, "append": made.append, "memory": made.memory}


def _digest(key: Json) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
