"""Sweep files: the traces, models, machines and cost tables of a sweep, in a TOML file.

A sweep file is a run file (:mod:`cosim.run.run_file`), whose runs are captured, with a table
``[sweep]`` that says what is replayed over each capture::

    accesses = true                # keys of a run file: what is captured
    filter = 1
    output = "tlbs"                # folder of the sweep; default: the file's name + -results

    [[run]]
    name = "micro"
    guest = "micro"

    [matrix]                       # captures: guests' command lines, workloads, CPUs ...
    workload = ["fork 10", "fork 100"]

    [sweep]
    models = ["native", "shadow", "lsp"]   # each is replayed; options as for --model
    per_task = 16                  # configurations that read a trace together, at most

    [sweep.traces]                 # traces that are there already, by name
    boot = "traces/boot"           # a folder, or a URI such as s3://bucket/boot

    [sweep.machine]                # replaces fields of the traces' machines
    setup = "h"

    [sweep.costs]                  # replaces fields of the default cost table
    reference = 20

    [sweep.matrix]                 # every combination is one configuration of each model
    machine.tlb.data = [[64, 2], [128, 4]]
    machine.walk_cache_ways = [0, 8]
    options.shadow.roots = [1, 4, "all"]   # varies only the models of that policy
    costs.exit = [500, 1000, 4000]

    [cluster]                      # machines to use; without it this one (cosim.sweep.cluster)
    kind = "slurm"

Relative paths start at the folder of the file, but ``output`` starts at the current folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cosim.errors import CosimError, UsageError
from cosim.models import machine_values
from cosim.run import matrix, request, run_file
from cosim.run.backend_options import Backends
from cosim.run.matrix import Axes, Keys, Leaf, leaves, merged, put
from cosim.run.run_file import RunFile
from cosim.run.toml_lines import Place
from cosim.sweep.grid import Configuration, configuration, distinct
from cosim.sweep.task_plan import open_trace
from cosim.trace.locate import is_uri
from hypervisor_model import policies
from hypervisor_model.policies.machine import MODELLED

MOST = 200_000
"""Rows of one sweep, which is configurations times traces (ours): more are a mistake."""
PER_TASK = 16
"""Configurations that read a trace together if the file does not say."""
_MOST_PER_TASK = 1024
_NAME = re.compile(r"[\w+=-][\w.+=-]*")
_KEYS = ("models", "per_task", "traces", "machine", "costs", "matrix")
_OF_MODELS = ("models", "machine", "stop_on_divergence", "runs")
"""Keys of a run file that concern models, which captures do not have."""
_STARTING = ("guest", "kernel", "bios", "pflash")
"""Keys of a run file that name what a machine starts."""
_VARIED = ("machine", "costs", "options")


@dataclass(frozen=True)
class SweepFile:
    """What one file asks for."""

    path: Path
    output: Path
    """The folder of the sweep."""
    captures: RunFile | None
    """The runs to capture; None if the file has none."""
    traces: Mapping[str, str]
    """The traces that are there already: folder or URI, by name."""
    configurations: tuple[Configuration, ...]
    per_task: int
    varied: tuple[str, ...] = ()
    """The keys of the matrix, with dots."""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """The table ``[cluster]``."""
    text: str = field(default="", repr=False)
    """Of the whole file."""

    @property
    def names(self) -> list[str]:
        """The names of all traces."""
        captured = [spec.name for spec in self.captures.runs] if self.captures else []
        return [*captured, *self.traces]

    def check_traces(self) -> None:
        """Check that the traces of ``[sweep.traces]`` are there.

        :raises RunFileError: when one is missing, or is no trace.
        :raises StorageError: when object storage does not give one.
        """
        for name, place in self.traces.items():
            try:
                open_trace(place)
            except UsageError as error:
                problem = f"{error}{_trace_inside(place)}"
                run_file.refuse(self.path, self.text, ("sweep", "traces", name), problem)


def load(path: Path, backends: Backends, default: str) -> SweepFile:
    """Return what the file ``path`` asks for, all of it checked.

    :param backends: the backends that captures may use.
    :param default: the backend of captures that name none.
    :raises RunFileError: when something is wrong; it names line and key of the first fault.
    """
    text, document = run_file.read(path)
    try:
        return _Loader(path, text).load(document, backends, default)
    except RecursionError:
        raise run_file.too_deep(path) from None


class _Loader:
    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text

    def load(self, document: dict[str, Any], backends: Backends, default: str) -> SweepFile:
        rest = dict(document)
        table = rest.pop("sweep", None)
        if not isinstance(table, dict):
            self._refuse(("sweep",), "must be a table [sweep] with the models to replay")
        cluster = rest.pop("cluster", {})
        if not isinstance(cluster, dict):
            self._refuse(("cluster",), f"is {cluster!r}, not a table")
        for key in table:
            if key not in _KEYS:
                self._refuse(("sweep", key), f"unknown key; known: {', '.join(_KEYS)}")
        varied = rest.get("matrix")
        for key in _OF_MODELS:
            if key in rest or (isinstance(varied, dict) and key in varied):
                place = (key,) if key in rest else ("matrix", key)
                self._refuse(place, "belongs in [sweep]: a capture has no models")
        output = run_file.folder_of_results(self._path, self._text, rest)
        traces = self._traces(table.get("traces", {}))
        known = {*request.file_keys(backends), "matrix"}
        if not traces and not _names_a_guest(rest) and rest.keys() <= known:
            self._refuse(
                ("sweep",),
                "nothing to replay: give a [[run]] (or guest), or traces in [sweep.traces]",
            )
        captures = None
        if rest:
            captures = run_file.load_document(
                self._path, self._text, rest, backends, default, others=("sweep", "cluster")
            )
            for spec in captures.runs:
                if spec.models or spec.machine or spec.stop_on_divergence or spec.runs > 1:
                    self._refuse(
                        ("run",), f"run {spec.name}: models and machines belong in [sweep]"
                    )
        names = [*(spec.name for spec in (captures.runs if captures else ())), *traces]
        for name in traces:
            if names.count(name) > 1:
                self._refuse(("sweep", "traces", name), "a capture has this name, too")
        return SweepFile(
            path=self._path,
            output=output,
            captures=captures,
            traces=traces,
            configurations=self._configurations(table, len(names)),
            per_task=self._per_task(table.get("per_task", PER_TASK)),
            varied=tuple(".".join(keys) for keys, _ in leaves(table.get("matrix", {})) if keys),
            cluster=cluster,
            text=self._text,
        )

    def _per_task(self, value: Any) -> int:
        if type(value) is not int or not 1 <= value <= _MOST_PER_TASK:
            self._refuse(("sweep", "per_task"), f"is {value!r}, not in 1..{_MOST_PER_TASK}")
        return value

    def _traces(self, table: Any) -> dict[str, str]:
        if not isinstance(table, dict):
            self._refuse(("sweep", "traces"), f"is {table!r}, not a table NAME = PATH")
        found = {}
        for name, path in table.items():
            place = ("sweep", "traces", name)
            if not _NAME.fullmatch(name):
                self._refuse(place, "a name of a trace has letters, digits and _ . + = -")
            if not isinstance(path, str) or not path or "\0" in path:
                self._refuse(place, f"is {path!r}, not a folder or URI")
            found[name] = path if is_uri(path) else str((self._path.parent / path).resolve())
        return found

    def _configurations(self, table: dict[str, Any], traces: int) -> tuple[Configuration, ...]:
        models = table.get("models")
        if not isinstance(models, list) or not models:
            self._refuse(("sweep", "models"), 'must be a list of models such as ["shadow", "lsp"]')
        varied = matrix.axes(table.get("matrix", {}), ("sweep", "matrix"), self._refuse)
        self._check_axes(varied)
        fixed = {
            (key, *keys): leaf
            for key in ("machine", "costs")
            for keys, leaf in leaves(self._table(table, key), ("sweep", key))
            if keys
        }
        planned = 0
        for index, model in enumerate(models):
            place: Place = ("sweep", "models", index)
            if not isinstance(model, str):
                self._refuse(place, f"is {model!r}, not a model such as shadow:roots=4")
            planned += traces * matrix.size(_axes_of(model, varied))
            if planned > MOST:
                self._refuse(
                    ("sweep", "matrix") if "matrix" in table else ("sweep", "models"),
                    f"gives more than {MOST:,} rows (configurations times traces), which is the "
                    "most of one sweep; vary fewer keys, or make several sweeps",
                )
        return tuple(distinct(self._expand(models, varied, fixed)))

    def _table(self, table: dict[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self._refuse(("sweep", key), f"is {value!r}, not a table")
        return value

    def _check_axes(self, varied: Axes) -> None:
        for keys, leaf in varied.items():
            if keys[0] not in _VARIED:
                self._refuse(leaf.place, f"unknown key; a matrix varies {', '.join(_VARIED)}")
            if keys[0] == "options" and (len(keys) != 3 or keys[1] not in policies.POLICIES):
                known = ", ".join(policies.POLICIES)
                self._refuse(leaf.place, f"write options.POLICY.NAME; the policies are {known}")

    def _expand(
        self, models: list[str], varied: Axes, fixed: Mapping[Keys, Leaf]
    ) -> Iterator[Configuration]:
        used: set[Keys] = set()
        for index, model in enumerate(models):
            mine = _axes_of(model, varied)
            self._check_not_set(index, model, mine)
            used |= mine.keys()
            for point in matrix.points(mine):
                found = merged(fixed, matrix.settings(point))
                yield self._build(model, found, ("sweep", "models", index))
        for keys, leaf in varied.items():
            if keys not in used:
                self._refuse(leaf.place, f"no model of the sweep is {keys[1]}")

    def _check_not_set(self, index: int, model: str, varied: Axes) -> None:
        """Check that ``model`` itself sets none of the options that the matrix varies for it."""
        own = {item.partition("=")[0] for item in model.partition(":")[2].split(",")}
        for keys, leaf in varied.items():
            if keys[0] == "options" and keys[2] in own:
                self._refuse(
                    leaf.place,
                    f"sweep.models[{index}] sets {keys[2]} already; the matrix cannot vary it",
                )

    def _build(self, model: str, found: Mapping[Keys, Leaf], place: Place) -> Configuration:
        parts = self._parts(found)
        try:
            return configuration(model, **parts)
        except CosimError:
            self._refuse_first(model, found, place)

    def _parts(self, found: Mapping[Keys, Leaf]) -> dict[str, dict[str, Any]]:
        """Return options, machine and costs as the values say them."""
        parts: dict[str, dict[str, Any]] = {"options": {}, "machine": {}, "costs": {}}
        for keys, leaf in found.items():
            if len(keys) == 1:
                if leaf.value != {}:
                    self._refuse(leaf.place, f"is {leaf.value!r}, not a table")
                continue
            for length in range(2, len(keys)):
                above = found.get(keys[:length])
                if above is not None and not isinstance(above.value, dict):
                    self._refuse(above.place, f"is {above.value!r}, not a table")
            if keys[0] == "machine" and keys[1] not in MODELLED:
                self._refuse(leaf.place, f"unknown key; known: {', '.join(MODELLED)}")
            if keys[0] == "options":
                parts["options"][keys[2]] = leaf.value
            elif keys[0] == "machine":
                value = machine_values.read(".".join(keys[1:]), leaf.value)
                put(parts["machine"], keys[1:], value)
            else:
                put(parts["costs"], keys[1:], leaf.value)
        return parts

    def _refuse_first(self, model: str, found: Mapping[Keys, Leaf], place: Place) -> NoReturn:
        """Report the first fault at the value that brings it in, or at ``model``.

        :param place: of the model.
        """
        said: dict[Keys, Leaf] = {}
        for keys, leaf in [((), Leaf(None, place)), *found.items()]:
            if keys:
                said[keys] = leaf
            try:
                configuration(model, **self._parts(said))
            except CosimError as error:
                self._refuse(leaf.place, str(error))
        raise AssertionError("the values have no fault")

    def _refuse(self, place: Place, problem: str) -> NoReturn:
        run_file.refuse(self._path, self._text, place, problem)


def _trace_inside(place: str) -> str:
    """Return a hint at the trace in the folder of a capture, if ``place`` is such a folder."""
    if is_uri(place):
        return ""
    inside = str(Path(place) / "trace")
    try:
        open_trace(inside)
    except CosimError:
        return ""
    return f"; the trace of this capture is {inside}"


def _names_a_guest(document: Mapping[str, Any]) -> bool:
    """Return True if the keys of a run file say what to capture."""
    varied = document.get("matrix")
    keys = {*document, *(varied if isinstance(varied, dict) else ())}
    return "run" in document or not keys.isdisjoint(_STARTING)


def _axes_of(model: str, varied: Axes) -> Axes:
    """Return the axes that concern ``model``: options only of its policy."""
    policy = model.partition(":")[0]
    return {
        keys: leaf for keys, leaf in varied.items() if keys[0] != "options" or keys[1] == policy
    }
