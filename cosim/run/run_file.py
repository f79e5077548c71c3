"""Run files: one or many runs in a TOML file, checked whole before anything starts.

Keys at the top of the file hold for every run::

    guest = "linux"            # or kernel = FILE, with initrd, append, bios, memory, cpu; a flat
                               # binary needs load_address = 0x80200000; bios = FILE may be alone
    disk = ["root.img"]        # as for --disk; likewise share, net, board, dtb, pflash, qemu, like
    backend = "plugin"         # the default of `cosim capture`; that of `cosim run` is gdb+plugin
    from = "mark:begin"        # the region of interest, as for --from and --to
    to = "mark:end"
    workload = "fork 100"      # what the guest's init runs (guests of the tool)
    accesses = true            # plugin backend; with gdb, step = N shows some accesses
    filter = 64                # plugin backend: slots of the access filter
    time_limit = 300           # seconds a run may take
    smp = 2                    # harts, up to 8; several run live, through the plugin
    runs = 5                   # with smp: so often, for each count's median and spread
    trace = true               # keep the events as a trace
    models = ["shadow", "lsp"] # with options as for --model
    stop_on_divergence = false
    output = "results"         # folder of the results; default: the file's name + -results

    [[console]]                # a dialogue: wait for expect at most within seconds, then send
    expect = "login: "
    send = "root\\n"
    within = 30

    [machine]                  # the modelled hardware and hypervisor; default: MachineModel's
    setup = "base"             # or h; tlb, walk_cache_ways, gstage_mode, gstage_page, footprint_*

Each ``[[run]]`` is one run.  It has a ``name``, and its own keys replace the common ones (tables
are merged key by key, lists are replaced).  A file without ``[[run]]`` is one run with the name of
the file.  ``[matrix]``, at the top or as ``[run.matrix]``, gives keys lists of values; each
combination is one run::

    [matrix]
    append = ["no4lvl", "no5lvl"]
    models = [["shadow", "lsp"], ["shadow:roots=1"]]

Relative paths start at the folder of the file, but ``output`` starts at the current folder.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cosim.errors import CosimError, RunFileError, UsageError
from cosim.files import read_regular
from cosim.run import request, toml_lines
from cosim.run.backend_options import Backends
from cosim.run.names import IN_FILE
from cosim.run.run_spec import RunSpec
from cosim.run.toml_lines import Place
from hypervisor_model.policies.machine import MODELLED, MachineModel

Keys = tuple[str, ...]

MOST_RUNS = 1000
"""Runs of one file (ours): a matrix that gives more is a mistake."""
_LARGEST = 1 << 20
"""Bytes of a run file."""


@dataclass(frozen=True)
class RunFile:
    """The runs of one file."""

    path: Path
    output: Path
    """The folder of the results; each run has a sub-folder with its name."""
    runs: tuple[RunSpec, ...]
    _text: str = field(repr=False)
    _places: Mapping[str, Mapping[str, Place]] = field(repr=False)
    """Of each run, by its name: where its keys stand, and under "" the run itself."""

    def refuse(self, name: str, error: UsageError) -> NoReturn:
        """Report ``error``, which is about the run ``name``, with its place in the file.

        :raises RunFileError: always.
        """
        places = self._places[name]
        place = places.get(error.key or "", (*places[""], error.key or ""))
        _fail(self.path, self._text, place, str(error))


class _Leaf(NamedTuple):
    """A value, and where it stands in the file."""

    value: Any
    place: Place


def load(path: Path, backends: Backends, default: str) -> RunFile:
    """Return the runs in the file ``path``, all of them checked.

    :param backends: the backends that there are.
    :param default: the backend of runs that name none.
    :raises RunFileError: when something is wrong; it names line and key of the first fault.
    """
    try:
        text = read_regular(path, _LARGEST).decode()
    except FileNotFoundError:
        raise RunFileError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RunFileError(f"{path}: cannot be read as text: {reason}") from error
    try:
        document = tomllib.loads(text)
        return _Loader(path, text, backends, default).load(document)
    except tomllib.TOMLDecodeError as error:
        raise RunFileError(f"{path}: not valid TOML: {error}") from error
    except RecursionError:
        raise RunFileError(f"{path}: its tables or arrays are nested too deep") from None


class _Loader:
    def __init__(self, path: Path, text: str, backends: Backends, default: str) -> None:
        self._path = path
        self._text = text
        self._backends = backends
        self._default = default
        self._keys = request.file_keys(backends)
        self._planned = 0

    def load(self, document: dict[str, Any]) -> RunFile:
        common = dict(document)
        output = common.pop("output", f"{self._path.stem}-results")
        if not isinstance(output, str) or not output or "\0" in output:
            self._fail(("output",), f"is {output!r}, not the name of a folder")
        matrix = common.pop("matrix", {})
        tables = common.pop("run", None)
        base: Place = ("run",)
        if tables is None:
            tables, base = [{"name": self._path.stem}], ()
        if not isinstance(tables, list) or not tables:
            self._fail(("run",), "must be tables [[run]]")
        shared = dict(_leaves(common))
        runs: dict[str, RunSpec] = {}
        places: dict[str, dict[str, Place]] = {}
        for index, table in enumerate(tables):
            here = (*base, index) if base else ()
            for name, leaves in self._expand(table, shared, matrix, here):
                if name in runs:
                    self._fail(here, f"a second run is named {name!r}")
                runs[name] = self._build(name, leaves, here)
                places[name] = {keys[0]: leaf.place for keys, leaf in leaves.items()} | {"": here}
        return RunFile(self._path, Path(output), tuple(runs.values()), self._text, places)

    def _expand(
        self, table: Any, shared: dict[Keys, _Leaf], matrix: Any, here: Place
    ) -> Iterator[tuple[str, dict[Keys, _Leaf]]]:
        if not isinstance(table, dict):
            self._fail(here, "must be a table [[run]]")
        own = dict(table)
        name = own.pop("name", None)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+=-]+", name) or name[0] == ".":
            self._fail((*here, "name"), f"is {name!r}; give letters, digits and _ . + = -")
        axes = dict(self._axes(matrix, ("matrix",)))
        axes.update(self._axes(own.pop("matrix", {}), (*here, "matrix")))
        self._planned += prod(len(axis.value) for axis in axes.values())
        if self._planned > MOST_RUNS:
            place = next((axis.place[:-1] for axis in axes.values()), here)
            self._fail(place, f"gives {self._planned:,} runs; a file may have {MOST_RUNS:,}")
        leaves = _merged(shared, dict(_leaves(own, here)))
        for values in product(*(axis.value for axis in axes.values())):
            point = {
                keys: _Leaf(value, axis.place)
                for (keys, axis), value in zip(axes.items(), values, strict=True)
            }
            label = "".join(f"-{keys[-1]}={_slug(leaf.value)}" for keys, leaf in point.items())
            nested: dict[Keys, _Leaf] = {}
            for keys, leaf in point.items():
                nested.update(_leaves(leaf.value, leaf.place, keys))
            yield name + label, _merged(leaves, nested)

    def _axes(self, matrix: Any, place: Place) -> Iterator[tuple[Keys, _Leaf]]:
        if not isinstance(matrix, dict):
            self._fail(place, "must be a table [matrix]")
        for keys, leaf in _leaves(matrix, place):
            if not isinstance(leaf.value, list) or not leaf.value:
                self._fail(leaf.place, f"is {leaf.value!r}, not a list of values")
            yield keys, leaf

    def _build(self, name: str, leaves: Mapping[Keys, _Leaf], here: Place) -> RunSpec:
        fields: dict[str, Any] = {}
        machine: dict[str, Any] = {}
        for keys, leaf in leaves.items():
            if keys[0] == "machine":
                if keys[1:2] and keys[1] not in MODELLED:
                    self._fail(leaf.place, f"unknown key; known: {', '.join(MODELLED)}")
                if len(keys) == 1 and leaf.value != {}:
                    self._fail(leaf.place, f"is {leaf.value!r}, not a table")
                _put(machine, keys[1:], leaf.value)
                self._check_machine(machine, leaf.place)
            elif keys[0] not in self._keys:
                known = ", ".join([*self._keys, "machine"])
                self._fail(leaf.place, f"unknown key; known: {known}")
            elif len(keys) > 1:
                self._fail(leaf.place, f"{keys[0]} is not a table")
            else:
                fields[keys[0]] = self._checked(keys[0], leaf)
        spec = request.make_spec(
            name,
            fields,
            default=self._default,
            backends=self._backends,
            names=IN_FILE,
            machine=machine,
        )
        if not isinstance(spec, RunSpec):
            leaf_of = leaves.get((spec.key,))
            self._fail(leaf_of.place if leaf_of else (*here, spec.key), spec.text)
        return spec

    def _checked(self, key: str, leaf: _Leaf) -> Any:
        try:
            return request.check(key, leaf.value, self._path.parent, self._backends)
        except (ValueError, CosimError) as error:
            self._fail(leaf.place, str(error))

    def _check_machine(self, machine: dict[str, Any], place: Place) -> None:
        """Check ``machine``, which has what the file says up to ``place``."""
        try:
            MachineModel.from_json(machine)
        except CosimError as error:
            self._fail(place, str(error))

    def _fail(self, place: Place, text: str) -> NoReturn:
        _fail(self._path, self._text, place, text)


def _fail(path: Path, text: str, place: Place, problem: str) -> NoReturn:
    line = toml_lines.find(text, place)
    key = toml_lines.dotted(tuple(part for part in place if part != ""))
    raise RunFileError(f"{path}:{line}: {key + ': ' if key else ''}{problem}")


def _leaves(value: Any, place: Place = (), keys: Keys = ()) -> Iterator[tuple[Keys, _Leaf]]:
    """Yield every value below tables, by its keys; an empty table counts as a value."""
    if isinstance(value, dict) and (value or not keys):
        for key, item in value.items():
            yield from _leaves(item, (*place, key), (*keys, key))
    else:
        yield keys, _Leaf(value, place)


def _merged(first: Mapping[Keys, _Leaf], second: Mapping[Keys, _Leaf]) -> dict[Keys, _Leaf]:
    """Return ``first`` with what ``second`` sets; a filled table replaces an empty one."""
    merged = {
        keys: leaf
        for keys, leaf in first.items()
        if leaf.value != {} or not any(other[: len(keys)] == keys for other in second)
    }
    return {**merged, **second}


def _put(table: dict[str, Any], keys: Keys, value: Any) -> None:
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    if keys:
        table[keys[-1]] = value


def _slug(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")[:40] or "empty"
