"""What the commands print: JSON or tables on stdout, messages and progress on stderr.

All text for people goes through this module, and nothing in it is parsed as markup.  Much of it
comes from outside: console lines, labels of marks, names of files, what a trace says of itself.  A
control character in it never reaches the terminal: :func:`safe` shows it as ``\\x1b``.

If stderr cannot be written, messages are lost and the command goes on.  If stdout cannot be
written, the result is lost: :class:`StorageError`, unless its reader only had enough (``| head``).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from cosim.errors import StorageError

_CONTROLS = re.compile(
    # C0 and C1, with which a terminal's escapes begin.
    "[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f"
    # What changes the order in which a line is read.
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"
    # Further ends of lines, and the bytes of a file's name that are no UTF-8.
    "\\u2028\\u2029\\ud800-\\udfff]"
)
_SHORT = {"\t": "\\t", "\r": "\\r"}
_SECRET = re.compile(r"([a-z][a-z0-9+.-]*:/{1,2})[^\s@/]*:\S+@", re.IGNORECASE)
"""A key and a secret in a URI, also in one that became a path, with one slash."""


def safe(text: str) -> str:
    """Return ``text`` without anything that a terminal would act on, except line feeds.

    Control characters are shown as Python writes them: ``\\x1b``, ``\\t``, ``\\u202e``.
    """
    return _CONTROLS.sub(_shown, text)


def one_line(text: str) -> str:
    """Return :func:`safe` text in one line: line feeds, too, are shown as ``\\n``."""
    return safe(text).replace("\n", "\\n")


def without_secrets(text: str) -> str:
    """Return ``text`` with ``...`` in place of a user and password in a URI.

    A message may repeat what the user typed, and a URI may have been typed in a wrong place.

    >>> without_secrets("s3://KEY:SECRET@bucket/boot: no such file")
    's3://...@bucket/boot: no such file'
    """
    return _SECRET.sub(r"\1...@", text)


def as_text(text: str, style: str = "") -> Text:
    """Return :func:`safe` text for rich to print, in one style."""
    return Text(safe(text), style=style)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    if 0xDC80 <= code <= 0xDCFF:
        # Python reads a byte that is no UTF-8 like this.
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


class _Console(Console):
    """A console that parses no text and lets no control character through."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return ``text`` in one line; cells of tables and their titles come through here."""
        return super().render_str(one_line(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of ``renderable``, none with a control character of a text."""
        if isinstance(renderable, Text) and _CONTROLS.search(renderable.plain):
            # Before the layout, which counts columns.
            renderable = renderable.copy()
            renderable.plain = safe(renderable.plain)
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROLS.search(segment.text):
                yield segment
            else:
                yield Segment(safe(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        # Rich would exit with status 1, but that is a finding.
        raise


class _Messages(io.TextIOBase):
    """Today's ``sys.stderr``, or nothing if it cannot be written."""

    @property
    def _stream(self) -> TextIO:
        # While a progress bar is shown, rich stands in for it.
        return cast(TextIO, getattr(sys.stderr, "rich_proxied_file", sys.stderr))

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return True if messages go to a terminal."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """Return the stream's descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write ``text``, or lose it."""
        with _losing(self._stream):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits, or lose it."""
        with _losing(self._stream):
            self._stream.flush()

    def __del__(self) -> None:
        """Close nothing: the stream is not ours, and when Python ends ``sys`` may be gone."""


@contextmanager
def _losing(stream: TextIO | None) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        pass
    except (OSError, ValueError, AttributeError):
        _abandon(stream)


def _abandon(stream: TextIO | None) -> None:
    """Send all further output of ``stream`` nowhere.

    Otherwise what waits in its buffer would fail again, and once more when Python exits.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        number = cast(TextIO, stream).fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


messages = _Console(file=cast(IO[str], _Messages()), soft_wrap=True)
"""The console for progress, notes and the live view: always stderr."""

WIDTH = 100
"""The width in columns that every table keeps to."""


@contextmanager
def _result() -> Iterator[None]:
    """Write to stdout in this context.

    :raises StorageError: when stdout cannot be written.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has all that it wants (`cosim ... | head`).
        _abandon(sys.stdout)
    except OSError as error:
        _abandon(sys.stdout)
        why = error.strerror or error
        raise StorageError(f"cannot write to standard output: {why}") from None


def print_json(document: Any) -> None:
    """Write ``document`` as the one JSON document on stdout.

    :raises StorageError: when stdout cannot be written.
    """
    with _result():
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")


def print_table(table: RenderableType) -> None:
    """Write ``table`` (or several, as a group) to stdout, at most :data:`WIDTH` columns wide.

    :raises StorageError: when stdout cannot be written.
    """
    with _result():
        console = _Console()
        if console.width > WIDTH or not sys.stdout.isatty():
            console = _Console(width=WIDTH)
        console.print(table)


def print_line(text: str = "") -> None:
    """Write one line of the result to stdout, however long it is.

    :raises StorageError: when stdout cannot be written.
    """
    with _result():
        sys.stdout.write(f"{one_line(text)}\n")


def note(text: str) -> None:
    """Write one line for the user to stderr."""
    messages.print(without_secrets(text))


def note_lines(text: str) -> None:
    """Write several lines for the user to stderr."""
    messages.print(as_text(without_secrets(text)))


def note_in_raw_mode(text: str, *, fresh: bool = True) -> None:
    """Write one line to a terminal in raw mode.

    A line feed alone does not move the cursor to the left margin there.

    :param fresh: the cursor is at the start of a line.
    """
    file = _Messages()
    file.write(f"{'' if fresh else chr(13) + chr(10)}{one_line(text)}\r\n")
    file.flush()


def start() -> None:
    """Prepare stdout and stderr for text that they cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish() -> None:
    """Write what waits, so that Python has nothing to do when it exits.

    :raises StorageError: when stdout cannot be written.
    """
    messages.file.flush()
    with _result():
        pass


class Step(Protocol):
    """Reports how far long work is: ``step(done, total, text)``; ``total`` is None if unknown."""

    def __call__(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Report that ``done`` of ``total`` units are finished."""
        ...


class SecondsLeft(ProgressColumn):
    """Shows the time left of work that is measured in seconds."""

    def render(self, task: Task) -> Text:
        """Return the time left of ``task``, as H:MM:SS."""
        if task.total is None:
            return Text("-:--:--", style="progress.remaining")
        minutes, seconds = divmod(round(max(task.total - task.completed, 0)), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}", style="progress.remaining")


@contextmanager
def progress(title: str, *, seconds: bool = False) -> Iterator[Step]:
    """Show a progress bar with the time left on stderr, if stderr is a terminal.

    :param title: what is done; a step may replace it.
    :param seconds: True if the work's units are estimated seconds.  Otherwise the time left is
        computed from the speed so far.
    :return: the function that reports progress.
    """
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        SecondsLeft() if seconds else TimeRemainingColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
    ) as bar:
        task = bar.add_task(one_line(title), total=None)

        def step(done: float, total: float | None = None, text: str | None = None) -> None:
            bar.update(task, completed=done, total=total, description=one_line(text or title))

        yield step
