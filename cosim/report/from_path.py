"""From what a user names - a result, a trace, a folder of figures - to its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cosim.errors import UsageError
from cosim.files import read_regular
from cosim.models.model_options import make_pipeline
from cosim.models.result import FORMAT, VERSION, ResultDocument, backend_name
from cosim.output import Step
from cosim.report import from_figures, from_result
from cosim.report.content import Report
from cosim.report.figure_document import ORDER, FigureDocument
from cosim.run.batch import RESULT
from cosim.trace import manifest
from cosim.trace.location import Location
from cosim.trace.reader import TraceReader
from cosim.trace.replay import replay


def load(path: Path | Location, step: Step) -> Report:
    """Return the report of ``path``: a result document, a figure's document, or a folder.

    A folder is one of ``cosim reproduce`` (with every figure that it makes), one with a
    ``result.json``, or a trace.  A trace is replayed with the default models, and ``step`` is told
    how far that is.

    :raises UsageError: when it is none of these, or a document in it is malformed.
    """
    if not isinstance(path, Path):
        return of_trace(path, step)
    if not path.is_dir():
        return _of_document(_read(path), path)
    if (path / RESULT).is_file():
        return _of_document(_read(path / RESULT), path / RESULT)
    if (path / manifest.NAME).is_file():
        return of_trace(path, step)
    # Only the figures' own names: other files in the folder may be anybody's, and malformed.
    files = (path / f"{name}.json" for name in ORDER)
    documents = [_figure(_read(file), file) for file in files if file.is_file()]
    if not documents:
        raise UsageError(f"{path}: holds no result, no trace and no figure of `cosim reproduce`")
    return from_figures.build(documents, "The experiments of the LSP paper, on real guests")


def of_trace(path: Path | Location, step: Step) -> Report:
    """Replay the trace in ``path`` with the default models and return the report of the result.

    :raises TraceDamage: when a segment is damaged.
    """
    trace = TraceReader(path)
    result: Any = replay(trace, make_pipeline(trace.origin), step)
    return _of_result(json.loads(json.dumps(result)), path)


def read_result(path: Path) -> ResultDocument:
    """Return the result in ``path``: a file, or a folder that has a ``result.json``.

    :raises UsageError: when there is none of this version.
    """
    file = path / RESULT if path.is_dir() else path
    data: Any = _read(file)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UsageError(f"{file}: is not a result (`cosim run --json`)")
    return _checked(data, file)


def _checked(data: Any, path: Path | Location) -> ResultDocument:
    if data.get("version") != VERSION:
        raise UsageError(f"{path}: a result of version {data.get('version')}, not {VERSION}")
    return data  # type: ignore[no-any-return]


def _of_document(data: Any, path: Path) -> Report:
    if isinstance(data, dict) and data.get("format") == FORMAT:
        return _of_result(data, path)
    figure = _figure(data, path)
    return from_figures.build([figure], figure.title)


def _figure(data: Any, path: Path) -> FigureDocument:
    if isinstance(data, dict) and "figure" in data:
        return FigureDocument(data, str(path))
    raise UsageError(f"{path}: is neither a result (`cosim run --json`) nor a figure's document")


def _of_result(data: Any, path: Path | Location) -> Report:
    _checked(data, path)
    try:
        data["backend"] = backend_name(data["backend"])
        return from_result.build(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: a damaged result: {type(error).__name__} {error}") from None


_LARGEST = 256 << 20
"""Bytes of a document that are read."""


def _read(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, _LARGEST))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file or folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is not a JSON document") from None
