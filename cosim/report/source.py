"""From what a user names - a result, a trace, a folder of figures - to its page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from cosim.errors import UsageError
from cosim.files import write_atomically
from cosim.models.choices import make_pipeline
from cosim.models.replay import replay
from cosim.models.result import FORMAT, VERSION, backend_name
from cosim.output import Step
from cosim.report import document, figures, page, results, table, tables
from cosim.report.document import FigureDocument
from cosim.report.page import Page
from cosim.report.programs import labelled
from cosim.run.batch import RESULT
from cosim.trace import manifest
from cosim.trace.reader import TraceReader


class Report(NamedTuple):
    """The page, and the same for the terminal."""

    page: Page
    terminal: RenderableType


def load(path: Path, step: Step) -> Report:
    """The report of ``path``: a result document, a figure's document, or a folder.

    A folder is one of ``cosim reproduce`` (every figure that it makes), one with a
    ``result.json``, or a trace, which is replayed with the default models; ``step`` is told of
    that.

    :raise UsageError: it is none of these, or a document in it is malformed.
    """
    if not path.is_dir():
        return _of_document(_read(path), path)
    if (path / RESULT).is_file():
        return _of_document(_read(path / RESULT), path / RESULT)
    if (path / manifest.NAME).is_file():
        trace = TraceReader(path)
        result: Any = replay(trace, make_pipeline(trace.origin), step)
        return _of_result(json.loads(json.dumps(result)), path)
    # Only these: what else lies there may be anybody's, and malformed.
    files = (path / f"{name}.json" for name in document.ORDER)
    documents = [_figure(_read(file), file) for file in files if file.is_file()]
    if not documents:
        raise UsageError(f"{path}: holds no result, no trace and no figure of `cosim reproduce`")
    return of_figures(documents, "The experiments of the LSP paper, on real guests")


def of_figures(documents: list[FigureDocument], title: str) -> Report:
    """The report of figures in the order of the paper.

    :raise UsageError: two are the same figure, or a row is not as it should be.
    """
    documents.sort(key=_place)
    for before, after in pairwise(documents):
        if before.figure == after.figure:
            raise UsageError(f"two documents are both figure {after.figure}")
    claims = figures.claims(documents)
    whole = Page(
        title=title,
        lead="Measured with lsp-cosim under QEMU. Every section says what was measured, what the "
        "paper states, and where and why the two differ. Counts, not times.",
        sections=tuple(figures.section(one) for one in documents),
        warnings=tuple(_warnings(documents)),
        tables=claims,
    )
    return Report(whole, Group(*_terminal(whole)))


def write(made: Page, path: Path) -> int:
    """Write ``made`` as HTML to ``path``, whole or not at all; return its size in bytes.

    :raise StorageError: it cannot be written.
    """
    data = page.render(made).encode()
    write_atomically(path, data)
    return len(data)


def _of_document(data: Any, path: Path) -> Report:
    if isinstance(data, dict) and data.get("format") == FORMAT:
        return _of_result(data, path)
    figure = _figure(data, path)
    return of_figures([figure], figure.title)


def _figure(data: Any, path: Path) -> FigureDocument:
    if isinstance(data, dict) and "figure" in data:
        return FigureDocument(data, str(path))
    raise UsageError(f"{path}: is neither a result (`cosim run --json`) nor a figure's document")


def _of_result(data: Any, path: Path) -> Report:
    if data.get("version") != VERSION:
        raise UsageError(f"{path}: a result of version {data.get('version')}, not {VERSION}")
    try:
        data = {**data, "backend": backend_name(data["backend"])}
        return Report(results.page(data), table.render(data))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: a damaged result: {type(error).__name__} {error}") from None


def _warnings(documents: list[FigureDocument]) -> Iterator[str]:
    """What is wrong with single figures, and with showing them together."""
    for one in documents:
        yield from (f"{one.figure}: {labelled(warning)}" for warning in one.warnings)
    quick = [one.figure for one in documents if one.quick]
    full = [one.figure for one in documents if not one.quick]
    if quick and full:
        yield (
            f"Sizes are mixed: {', '.join(quick)} of a quick run (small sizes), "
            f"{', '.join(full)} of a full one. Do not compare their counts."
        )


def _terminal(made: Page) -> Iterator[RenderableType]:
    yield from (Text(f"Warning: {warning}", style="bold red") for warning in made.warnings)
    yield from map(tables.Fitted, made.tables)
    for section in made.sections:
        yield Text(section.heading, style="bold")
        for figure in section.figures:
            if figure.caption != section.heading:
                yield Text(figure.caption)
            yield from map(tables.Fitted, page.tables_of(figure))


def _place(one: FigureDocument) -> tuple[int, str]:
    known = document.ORDER
    return known.index(one.figure) if one.figure in known else len(known), one.figure


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file or folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is no JSON document") from None
