"""One ``cosim debug``: the recording, its re-execution, and the user's gdb."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cosim import paths
from cosim.debug import commands, symbol_file
from cosim.debug.analysis import Analysis
from cosim.debug.commands import history
from cosim.debug.console_view import ConsoleView
from cosim.debug.counted_events import Place, Timeline
from cosim.debug.debuggee import Debuggee, Recording
from cosim.debug.gdb_line import Aim, GdbLine
from cosim.debug.gdbinit import GDB_PART
from cosim.debug.link import Link
from cosim.debug.rerun import Rerun, Why
from cosim.errors import GdbError, GuestError
from cosim.kernel.images import KernelImage
from cosim.kernel.places import Places
from cosim.kernel.symbols import Symbols
from cosim.machine import interrupts, process
from cosim.run.plan import DEFAULT_TIME_LIMIT, Plan
from cosim.session.both_sources import Heard
from cosim.session.origin import origin
from cosim.session.plugin_session import source
from cosim.session.protocol import Note, Progress, View
from cosim.session.recording import Recorded, last_words, record
from cosim.session.view import live_view

_TICK = 0.2
_GDB_SECONDS = 5.0


@dataclass(frozen=True)
class Debugger:
    """How the user's gdb is started."""

    program: Path
    arguments: Sequence[str] = ()
    """Further arguments of the user's."""


def debug_recorded(
    plan: Plan, folder: Path, debugger: Debugger, note: Note, *, at: str | None = None
) -> int:
    """Record the guest, then let the user debug its re-execution; return gdb's exit status.

    :param at: where the guest stands first: at the first place of this kind of ``break-on``; None:
        where the region begins.
    :param folder: an empty folder for the logs and the recording.
    :param note: is told what the user should know before gdb has the terminal.
    :raises CosimError: when the guest cannot be recorded, or gdb not be started.
    """
    log = folder / "recording.bin"
    recorded, heard = _record(plan, log, folder, note)
    begin, end = heard.begin, heard.end
    before = 0 if begin is None else begin.instructions - begin.retired
    timeline = Timeline(heard.events(), before, heard.calls, heard.processes)
    first = None if begin is None else Place(begin.instructions, begin.pc)
    last = None
    if end is not None:
        last = Place(end.instructions, end.pc)
    elif recorded.instructions is not None:
        last = Place(recorded.instructions, None)
    places = Places(plan.kernel)
    analysis = Analysis(timeline.events, origin(plan), places, plan.models)
    analysis.say = lambda text: note(f"cosim: {text}")
    with ExitStack() as stack:
        view = stack.enter_context(ConsoleView(folder / "console.log"))
        rerun = Rerun(plan, recorded, log, folder, first, last, view)
        stack.callback(lambda: rerun.close())
        ours, theirs = socket.socketpair()
        stack.callback(ours.close)
        stack.callback(theirs.close)
        link = Link(ours)
        line = GdbLine(rerun, shows_progress=sys.stdout.isatty())
        stack.callback(line.close)
        link.beside = line
        debuggee = Debuggee(link, rerun)
        recording = Recording(timeline, rerun, line, analysis, places)
        debuggee.record(recording)
        aim = None if at is None else _first(recording, at, note)
        if aim is not None:
            _go_to(aim.place, rerun)
            line.land(aim)
        elif first is not None:
            _go_to(first, rerun)
        rerun.prepare()
        analysis.say = link.say
        note(f"cosim: the guest's console is {view.where}")
        files = _symbol_commands(plan.image, plan.symbols, folder)
        return _serve(debugger, files, f"target remote {line.path}", link, theirs, debuggee, line)


def _first(recording: Recording, kind: str, note: Note) -> Aim | None:
    """Return the first place of one kind of ``break-on``; note if there is none."""
    rule = history.rule(recording, kind)
    if not len(rule.numbers):
        note(f"cosim: the recording has no {kind}; the guest is where the region begins")
        return None
    number = int(rule.numbers[0])
    return recording.aim(number, rule.text(number))


def debug_attached(
    target: str, kernel: KernelImage | None, symbols: Symbols, folder: Path, debugger: Debugger
) -> int:
    """Let the user debug a QEMU that somebody else started; return gdb's exit status.

    :param target: what gdb's ``target remote`` takes.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link = Link(ours)
        debuggee = Debuggee(link)
        files = [] if kernel is None else _symbol_commands(kernel, symbols, folder)
        return _serve(debugger, files, f"target remote {target}", link, theirs, debuggee, None)


def _go_to(place: Place, rerun: Rerun) -> None:
    began = time.monotonic()
    with live_view() as view:

        def tell(count: int, goal: int | None) -> None:
            of = f"instruction {count:,} of {place.count:,}"
            view(Progress("to the region", time.monotonic() - began, 0, of, {}))

        stop = rerun.run(place, _never, tell)
    if stop.why is not Why.PLACE:
        raise GuestError("the re-execution ended before the region began")


def _never() -> bool:
    interrupts.check()
    return False


def _record(plan: Plan, log: Path, folder: Path, note: Note) -> tuple[Recorded, Heard]:
    began = time.monotonic()
    limit = plan.time_limit or DEFAULT_TIME_LIMIT
    split: frozenset[int] = frozenset()
    # A `wfi` that came while the guest ran needs a second recording.
    for attempt in range(3):
        plugin = source(plan, accesses=True, slots=1)
        with plugin, live_view() as view:

            def show(phase: str, line: str, view: View = view) -> None:
                view(Progress(phase, time.monotonic() - began, 0, line, {}))

            heard = Heard(plan, plugin, folder)
            recorded = record(
                plan, log, folder, began + limit, show, note, beside=heard, split=split
            )
        if not recorded.unsplit or attempt == 2:
            break
        split |= recorded.unsplit
    if heard.summary.never_started and recorded.loop is None:
        raise GuestError(
            f"the guest ended before the region began ({plan.edge(end=False)}); "
            f"{last_words(recorded.last_line)}",
            log=str(folder / "record.console.log"),
        )
    return recorded, heard


def _symbol_commands(image: KernelImage, symbols: Symbols, folder: Path) -> list[str]:
    """Return the gdb commands that load the kernel's symbols."""
    if image.elf is not None:
        return [f"file {image.elf}"]
    if not len(symbols):
        return []
    path = folder / "symbols.elf"
    symbol_file.write(path, symbols)
    return [f"file {path}"]


def _serve(
    debugger: Debugger,
    files: Sequence[str],
    connect: str,
    link: Link,
    theirs: socket.socket,
    debuggee: Debuggee,
    line: GdbLine | None,
) -> int:
    """Run gdb in the terminal, and answer it until it ends; return its exit status."""
    words = [str(debugger.program), "-q", "-iex", "set architecture riscv:rv64"]
    # The debug information of our guests names their sources from here on.
    words += ["-d", str(paths.SOURCE)]
    for command in (*files, f"source {GDB_PART}", connect):
        words += ["-ex", command]
    words += debugger.arguments
    with _terminal():
        gdb = process.spawn_in_terminal(
            words, pass_fds=[theirs.fileno()], environment={"COSIM_GDB_LINK": str(theirs.fileno())}
        )
        theirs.close()
        try:
            return _answer_until_end(gdb, link, debuggee, line)
        finally:
            # It restores the terminal when it is asked to end.
            if gdb.poll() is None:
                gdb.terminate()
            process.end(gdb, _GDB_SECONDS)


def _answer_until_end(
    gdb: subprocess.Popen[bytes], link: Link, debuggee: Debuggee, line: GdbLine | None
) -> int:
    asks = True
    while gdb.poll() is None:
        watched: list[Link | GdbLine] = [link] if asks else []
        if line is not None:
            watched.append(line)
        ready = select.select(watched, [], [], _TICK)[0]
        if line is not None and line in ready:
            line.serve()
        if link in ready:
            asks = link.serve(lambda words: commands.answer(debuggee, words))
    status = gdb.returncode
    if status < 0:
        raise GdbError(f"gdb {process.how_it_ended(status)}")
    return status


@contextmanager
def _terminal() -> Iterator[None]:
    """Leave Ctrl-C to gdb, and the terminal as it was.

    gdb is in our group of processes, so that the terminal's signals reach it, and us as well.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    saved = None
    with suppress(termios.error, ValueError, OSError):
        saved = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        if saved is not None:
            with suppress(termios.error, OSError):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, saved)
        signal.signal(signal.SIGINT, before)
