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
from pathlib import Path
from typing import Any, NoReturn

from cosim.errors import CosimError, RunFileError, UsageError
from cosim.files import read_regular
from cosim.models import machine_values
from cosim.run import matrix as matrices
from cosim.run import request, toml_lines
from cosim.run.backend_options import Backends
from cosim.run.matrix import Keys, Leaf, leaves, merged, put
from cosim.run.names import IN_FILE
from cosim.run.run_spec import RunSpec
from cosim.run.toml_lines import Place
from hypervisor_model.policies.machine import MODELLED, MachineModel

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
        refuse(self.path, self._text, place, str(error))


def load(path: Path, backends: Backends, default: str) -> RunFile:
    """Return the runs in the file ``path``, all of them checked.

    :param backends: the backends that there are.
    :param default: the backend of runs that name none.
    :raises RunFileError: when something is wrong; it names line and key of the first fault.
    """
    text, document = read(path)
    return load_document(path, text, document, backends, default)


def load_document(
    path: Path,
    text: str,
    document: dict[str, Any],
    backends: Backends,
    default: str,
    others: tuple[str, ...] = (),
) -> RunFile:
    """Return the runs in ``document``, which is all or a part of the file; as :func:`load`.

    :param others: keys at the top of the file that the caller reads.
    """
    try:
        return _Loader(path, text, backends, default, others).load(document)
    except RecursionError:
        raise too_deep(path) from None


def read(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of the file ``path``, and the TOML document in it.

    :raises RunFileError: when it cannot be read, or is no TOML.
    """
    try:
        text = read_regular(path, _LARGEST).decode()
    except FileNotFoundError:
        raise RunFileError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RunFileError(f"{path}: cannot be read as text: {reason}") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunFileError(f"{path}: not valid TOML: {error}") from error
    except RecursionError:
        raise too_deep(path) from None


def folder_of_results(path: Path, text: str, document: dict[str, Any]) -> Path:
    """Return the folder of the results that ``document`` names, and take the key out of it.

    :raises RunFileError: when it is not the name of a folder.
    """
    output = document.pop("output", f"{path.stem}-results")
    if not isinstance(output, str) or not output or "\0" in output:
        refuse(path, text, ("output",), f"is {output!r}, not the name of a folder")
    return Path(output)


def too_deep(path: Path) -> RunFileError:
    """Return the error about a file whose tables are nested too deep."""
    return RunFileError(f"{path}: its tables or arrays are nested too deep")


class _Loader:
    def __init__(
        self, path: Path, text: str, backends: Backends, default: str, others: tuple[str, ...]
    ) -> None:
        self._path = path
        self._others = others
        self._text = text
        self._backends = backends
        self._default = default
        self._keys = request.file_keys(backends)
        self._planned = 0

    def load(self, document: dict[str, Any]) -> RunFile:
        common = dict(document)
        output = folder_of_results(self._path, self._text, common)
        matrix = common.pop("matrix", {})
        tables = common.pop("run", None)
        base: Place = ("run",)
        if tables is None:
            tables, base = [{"name": self._path.stem}], ()
        if not isinstance(tables, list) or not tables:
            self._fail(("run",), "must be tables [[run]]")
        shared = dict(leaves(common))
        runs: dict[str, RunSpec] = {}
        places: dict[str, dict[str, Place]] = {}
        for index, table in enumerate(tables):
            here = (*base, index) if base else ()
            for name, found in self._expand(table, shared, matrix, here):
                if name in runs:
                    self._fail(here, f"a second run is named {name!r}")
                runs[name] = self._build(name, found, here)
                places[name] = {keys[0]: leaf.place for keys, leaf in found.items()} | {"": here}
        return RunFile(self._path, output, tuple(runs.values()), self._text, places)

    def _expand(
        self, table: Any, shared: dict[Keys, Leaf], matrix: Any, here: Place
    ) -> Iterator[tuple[str, dict[Keys, Leaf]]]:
        if not isinstance(table, dict):
            self._fail(here, "must be a table [[run]]")
        own = dict(table)
        name = own.pop("name", None)
        if not isinstance(name, str) or not re.fullmatch(r"[\w.+=-]+", name) or name[0] == ".":
            self._fail((*here, "name"), f"is {name!r}; give letters, digits and _ . + = -")
        axes = matrices.axes(matrix, ("matrix",), self._fail)
        axes.update(matrices.axes(own.pop("matrix", {}), (*here, "matrix"), self._fail))
        self._planned += matrices.size(axes)
        if self._planned > MOST_RUNS:
            place = next((axis.place[:-1] for axis in axes.values()), here)
            self._fail(place, f"gives {self._planned:,} runs; a file may have {MOST_RUNS:,}")
        common = merged(shared, dict(leaves(own, here)))
        for point in matrices.points(axes):
            label = "".join(f"-{keys[-1]}={_slug(leaf.value)}" for keys, leaf in point.items())
            yield name + label, merged(common, matrices.settings(point))

    def _build(self, name: str, found: Mapping[Keys, Leaf], here: Place) -> RunSpec:
        fields: dict[str, Any] = {}
        machine: dict[str, Any] = {}
        for keys, leaf in found.items():
            if keys[0] == "machine":
                if keys[1:2] and keys[1] not in MODELLED:
                    self._fail(leaf.place, f"unknown key; known: {', '.join(MODELLED)}")
                if len(keys) == 1 and leaf.value != {}:
                    self._fail(leaf.place, f"is {leaf.value!r}, not a table")
                put(machine, keys[1:], machine_values.read(".".join(keys[1:]), leaf.value))
                self._check_machine(machine, leaf.place)
            elif keys[0] not in self._keys:
                self._fail(leaf.place, f"unknown key; known: {', '.join(self._known(leaf.place))}")
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
            leaf_of = found.get((spec.key,))
            self._fail(leaf_of.place if leaf_of else (*here, spec.key), spec.text)
        return spec

    def _known(self, place: Place) -> list[str]:
        """Return the keys that there can be in the table of the key at ``place``."""
        known = [*self._keys, "machine"]
        if "matrix" in place[:-1]:
            return known
        if place[0] == "run":
            return [*known, "name", "matrix"]
        return [*known, "output", "run", "matrix", *self._others]

    def _checked(self, key: str, leaf: Leaf) -> Any:
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
        refuse(self._path, self._text, place, text)


def refuse(path: Path, text: str, place: Place, problem: str) -> NoReturn:
    """Report ``problem`` with the line and the key at ``place`` of the file ``path``.

    :param text: of the whole file.
    :raises RunFileError: always.
    """
    line = toml_lines.find(text, place)
    key = toml_lines.dotted(tuple(part for part in place if part != ""))
    raise RunFileError(f"{path}:{line}: {key + ': ' if key else ''}{problem}")


def _slug(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")[:40] or "empty"
