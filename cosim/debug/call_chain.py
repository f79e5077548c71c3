"""Who called the instructions that owe a fence: a re-execution is sent to each, and gdb asked.

gdb unwinds by the kernel's debug information.  Without it gdb loses the way.  Then frame pointers
are followed, which Linux has: at ``s0 - 8`` lies the return address of the function, at ``s0 - 16``
the ``s0`` of its caller.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cosim.debug import symbol_file
from cosim.debug.console_view import ConsoleView
from cosim.debug.counted_events import Place
from cosim.debug.gdb_line import GdbLine
from cosim.debug.rerun import Rerun, Why
from cosim.debugger.mi import GdbMi
from cosim.debugger.rsp import Stub
from cosim.errors import CosimError, GdbError, MissingTool
from cosim.kernel.places import Frame, Places
from cosim.machine import interrupts, tools
from cosim.machine.configuration import RAM_BASE
from cosim.run.plan import Plan
from cosim.session.recording import Recorded

MOST_FRAMES = 64
_LARGEST_FRAME = 1 << 14
"""Bytes: a kernel's stack."""
_LARGEST_FUNCTION = 1 << 20
_RA, _FP = 1, 8
_UNNAMED = (None, "??")
_POLL_SECONDS = 0.1
_FLUSH = ("maintenance flush register-cache", "flushregs")
"""The first of them is that of newer gdbs."""
_ALL = Recorded(None, late=False, panic=None, instructions=None)

Chain = Sequence[Frame] | str
"""Frames, the innermost first; or why they are not known."""
Tell = Callable[[int, int], None]
"""Is told how many call chains of how many are known."""


class Wanted(NamedTuple):
    """An instruction whose callers are wanted."""

    event: int
    """The event that it made."""
    place: Place
    entry: int | None
    """PA of an entry that it changes; None if it is no store."""
    old: int
    """The entry before it."""


def call_chains(
    plan: Plan, log: Path, wanted: Sequence[Wanted], places: Places, folder: Path, tell: Tell
) -> dict[int, Chain]:
    """Return the call chain of each instruction, by its event.

    :param log: the recording.
    :param wanted: in the order in which the guest executed them.
    :param folder: for the logs of the re-execution.
    """
    found: dict[int, Chain] = {}
    try:
        for number, (one, chain) in enumerate(_chains(plan, log, wanted, places, folder)):
            found[one.event] = chain
            tell(number + 1, len(wanted))
    except MissingTool as error:
        return _rest(wanted, found, str(error))
    except CosimError as error:
        return _rest(wanted, found, f"the re-execution failed: {error}")
    return found


def _rest(wanted: Sequence[Wanted], found: Mapping[int, Chain], why: str) -> dict[int, Chain]:
    return {one.event: why for one in wanted} | dict(found)


def _chains(
    plan: Plan, log: Path, wanted: Sequence[Wanted], places: Places, folder: Path
) -> Iterator[tuple[Wanted, Chain]]:
    program = tools.gdb().path
    with ExitStack() as stack:
        view = stack.enter_context(ConsoleView(folder / "call-chains.console.log"))
        rerun = Rerun(plan, _ALL, log, folder, None, None, view)
        stack.callback(rerun.close)
        gdb: GdbMi | None = None
        for one in wanted:
            stop = rerun.run(one.place, _never)
            if stop.why is not Why.PLACE or not _stands_before(one, rerun):
                yield one, "the re-execution did not come to this store"
                continue
            if gdb is None:
                line = GdbLine(rerun)
                stack.enter_context(_served(line))
                gdb = stack.enter_context(GdbMi(program))
                _load_symbols(gdb, plan, folder)
                for cache in ("stack-cache", "code-cache"):
                    # gdb does not know that the guest moves between two questions.
                    gdb.command(f"-gdb-set {cache} off")
                gdb.connect(line.path)
            else:
                _forget_registers(gdb)
            yield one, _chain(gdb, rerun, places)


def _never() -> bool:
    interrupts.check()
    return False


def _stands_before(one: Wanted, rerun: Rerun) -> bool:
    """Return True if the entry still has the value that the instruction replaces."""
    if one.entry is None:
        return True
    word = int(rerun.ram[(one.entry - RAM_BASE) >> 3])
    return word & (1 << 64) - 1 == one.old


@contextmanager
def _served(line: GdbLine) -> Iterator[None]:
    """Answer what gdb asks of the stopped guest."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if select.select([line], [], [], _POLL_SECONDS)[0]:
                with contextlib.suppress(CosimError):
                    line.serve()

    server = threading.Thread(target=serve, name="gdb-line", daemon=True)
    server.start()
    try:
        yield
    finally:
        over.set()
        server.join()
        line.close()


def _load_symbols(gdb: GdbMi, plan: Plan, folder: Path) -> None:
    if plan.image.elf is not None:
        gdb.load_symbols(plan.image.elf)
    elif len(plan.symbols):
        path = folder / "symbols.elf"
        symbol_file.write(path, plan.symbols)
        gdb.load_symbols(path)


def _forget_registers(gdb: GdbMi) -> None:
    for command in _FLUSH:
        with contextlib.suppress(GdbError):
            gdb.execute(command)
            return
    raise GdbError("gdb cannot forget the registers of the stop before")


def _chain(gdb: GdbMi, rerun: Rerun, places: Places) -> Chain:
    told: list[Frame] = []
    with contextlib.suppress(GdbError):
        # It may not know the caller of some frame, and then it tells none.
        told = _frames(gdb, places)
    if len(told) > 1 and all(frame.symbol not in _UNNAMED for frame in told):
        return told
    followed = followed_frames(rerun.general(), lambda va: _word(rerun.stub, va), places)
    return followed or "neither gdb nor frame pointers tell who called"


def _word(stub: Stub, va: int) -> int | None:
    """Return the 8 bytes at ``va`` through the guest's tables; None if they are not mapped."""
    answer = stub.request(b"m%x,8" % va)
    if len(answer) != 16:
        return None
    return int.from_bytes(bytes.fromhex(answer.decode()), "little")


def followed_frames(
    general: Sequence[int], word: Callable[[int], int | None], places: Places
) -> list[Frame]:
    """Return the frames that frame pointers lead to; none if they lead nowhere.

    :param general: x0..x31 and pc.
    :param word: returns the 8 bytes at a virtual address, or None.
    """
    pc, ra, fp = general[32], general[_RA], general[_FP]
    frames = [Frame(pc, places.symbol(pc), places.source(pc))]
    saved = word(fp - 8)
    if ra != saved and _function(ra, places) not in (None, _function(pc, places)):
        # A leaf function has no frame: s0 is its caller's.
        frames.append(_caller(ra, places))
    while saved is not None and _function(saved, places) is not None:
        frames.append(_caller(saved, places))
        above = word(fp - 16)
        if above is None or not fp < above <= fp + _LARGEST_FRAME or above % 8:
            break
        if len(frames) == MOST_FRAMES:
            break
        fp = above
        saved = word(fp - 8)
    return frames if len(frames) > 1 else []


def _function(pc: int, places: Places) -> str | None:
    name, _, offset = (places.symbol(pc) or "").partition("+")
    return name if name and int(offset or "0", 16) < _LARGEST_FUNCTION else None


def _caller(pc: int, places: Places) -> Frame:
    # It is behind the call.
    return Frame(pc, places.symbol(pc), places.source(pc - 1))


def _frames(gdb: GdbMi, places: Places) -> list[Frame]:
    answer = gdb.command(f"-stack-list-frames 0 {MOST_FRAMES - 1}")
    frames: list[Frame] = []
    for number, entry in enumerate(answer.get("stack", ())):
        frame: dict[str, Any] = entry.get("frame", entry)
        pc = int(frame["addr"], 16)
        # A caller's pc is behind its call.
        symbol = places.symbol(pc)
        inlined = bool(frames) and frames[-1].pc == pc
        if symbol is None or inlined:
            symbol = frame.get("func", symbol)
        source = places.source(pc - (number > 0))
        if "line" in frame:
            source = f"{Path(frame['file']).name}:{frame['line']}"
        frames.append(Frame(pc, symbol, source))
    return frames
