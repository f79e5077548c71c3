"""The plugin as an event source."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from cosim.capture import marks
from cosim.capture.decode import CBO_BLOCK
from cosim.capture.paging import ALWAYS_SETS_AD, Paging
from cosim.capture.plugin import build, unsent
from cosim.capture.plugin.limits import FILTER_LARGEST, FILTER_SLOTS
from cosim.capture.plugin.stream import Place, StreamReader, Summary
from cosim.capture.processes import Process, ProcessLayout
from cosim.errors import MissingTool, UsageError
from cosim.machine.configuration import OFF_SWITCH
from hypervisor_model.events import EventBatch

LABEL_LARGEST = 32


class PluginSource:
    """Events of one run of QEMU, made by the TCG plugin.

    Use it as a context manager.  Entering compiles and checks the plugin.  Then pass
    :meth:`qemu_args` and :attr:`pass_fds` to the machine, call :meth:`started` when QEMU runs, and
    read :meth:`batches`.

    :param qemu: the emulator.
    :param memory: bytes of guest RAM.
    :param ram_name: part of the name of QEMU's mapping of guest RAM in ``/proc/PID/maps``.
    :param ram_base: physical address of guest RAM.
    :param accesses: ``all``: ACCESS events that passed the filter; ``none``: no ACCESS events.
    :param slots: slots of the access filter, a power of two up to 512.  1 passes every change of
        page.  0 means no filter: every fetch, load and store is an event, which only tests need.
    :param start: where the region begins.  ``boot``, ``mark:LABEL`` or ``pc:ADDRESS``: before that
        instruction.  ``request``: soon after :meth:`begin`, before a return from a trap.
    :param end: where the region ends.  ``end``: with the machine.  ``mark:LABEL`` or
        ``pc:ADDRESS``: before that instruction.  ``request``: soon after :meth:`end`.
    :param mark: virtual address of the mark instruction; None if the guest has none.
    :param mark_in_user: True if the mark counts only in U-mode.
    :param firmware: True if the guest runs in S-mode and calls firmware.  If there are several
        harts, a call for remote fences is then an event, and a fence of the firmware is none.
    :param cbo_block: bytes that the CPU's ``cbo.zero`` clears.
    :param paging: what the CPU has of the paging features that a guest can switch.
    :param devices: True if devices may write to RAM.  Entries that changed without a store are then
        events, too (``PteOp.OTHER``).
    :param processes: where the guest's kernel keeps which process owns an address space; None if
        that is not known.
    :param timeout: seconds of silence after which :meth:`batches` gives up; None: never.
    :raises UsageError: when ``slots``, ``start`` or ``end`` is wrong.
    """

    def __init__(
        self,
        qemu: Path,
        *,
        memory: int,
        ram_base: int = 0x8000_0000,
        ram_name: str = "guest-ram",
        accesses: Literal["all", "none"] = "none",
        slots: int = FILTER_SLOTS,
        start: str = "boot",
        end: str = "end",
        mark: int | None = marks.USER_MARK,
        mark_in_user: bool = True,
        firmware: bool = True,
        cbo_block: int = CBO_BLOCK,
        paging: Paging = ALWAYS_SETS_AD,
        devices: bool = False,
        processes: ProcessLayout | None = None,
        timeout: float | None = None,
    ) -> None:
        if slots & (slots - 1) or not 0 <= slots <= FILTER_LARGEST:
            raise UsageError(
                f"the slots of the access filter must be a power of two up to {FILTER_LARGEST}, "
                f"or 0, not {slots}"
            )
        for limit in (start, end):
            _check_limit(limit)
        self.accesses: Literal["all", "none"] = accesses
        self._qemu = qemu
        self._timeout = timeout
        self._options = [
            f"ram={ram_name}",
            f"base={ram_base:#x}",
            f"size={memory:#x}",
            f"accesses={accesses}",
            f"from={start}",
            f"to={end}",
            f"off={OFF_SWITCH:#x}",
            f"firmware={'on' if firmware else 'off'}",
            f"cboz={cbo_block}",
            f"switches={paging.switches:#x}",
            f"paging={paging.features:#x}",
        ]
        if devices:
            self._options.append("devices=1")
        if processes is not None:
            self._options.append(f"processes={processes.option()}")
        if accesses == "all":
            self._options.append(f"filter={slots}")
        if mark is not None:
            self._options += [f"mark={mark:#x}", f"markpriv={'u' if mark_in_user else 'any'}"]
        self._library: Path | None = None
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self._reader: StreamReader | None = None

    def __enter__(self) -> Self:
        """Compile the plugin, check that QEMU loads it, and open the stream.

        :raises MissingTool: when there is no compiler, or QEMU does not load the plugin.
        :raises StorageError: when the compiled plugin cannot be written.
        """
        library = build.build()
        build.check_loads(self._qemu, library)
        self._library = library
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(self._timeout)
        self._reader = StreamReader(self._ours)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading.  The plugin then stops recording; the guest may go on."""
        for line in (self._ours, self._theirs):
            if line is not None:
                line.close()
        self._ours = self._theirs = None

    def qemu_args(self) -> list[str]:
        """Return the arguments that load the plugin, to append to QEMU's.

        :raises MissingTool: when the source is not open.
        """
        if self._library is None or self._theirs is None:
            raise MissingTool("the plugin source is not open")
        words = [str(self._library), f"fd={self._theirs.fileno()}", *self._options]
        return ["-plugin", "file=" + ",".join(word.replace(",", ",,") for word in words)]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """Descriptors that QEMU must inherit."""
        assert self._theirs is not None
        return (self._theirs.fileno(),)

    def started(self) -> None:
        """QEMU runs: close our copy of its end of the stream, so that its death ends the stream."""
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def begin(self) -> None:
        """Ask the plugin to begin a region that has ``start="request"``."""
        self._request(b"b")

    def end(self) -> None:
        """Ask the plugin to end a region that has ``end="request"``."""
        self._request(b"e")

    def stop(self) -> None:
        """Ask the plugin to end wherever the guest is, as if the machine ended there.

        A guest that traps all the time does so at once, and any other when QEMU ends.
        """
        self._request(b"s")

    def _request(self, byte: bytes) -> None:
        if self._ours is not None:
            # If QEMU is gone, `batches` says so.
            with contextlib.suppress(OSError):
                self._ours.send(byte)

    def batches(self) -> Iterator[EventBatch]:
        """Yield the region's events in program order, to the end of the region or of the machine.

        :raises MachineError: when the stream is cut or damaged, or silent longer than ``timeout``.
        """
        self.started()
        assert self._reader is not None
        yield from self._reader.batches()

    def unsent(self, pid: int) -> EventBatch:
        """Return what the plugin in the process ``pid`` has not sent yet.

        Nothing of the guest may run.  The events come behind those of :meth:`batches`.
        """
        assert self._library is not None
        return unsent.read(pid, self._library)

    @property
    def labels(self) -> list[str]:
        """The labels of the marks so far; a MARK event's ``a`` is an index into them."""
        assert self._reader is not None
        return self._reader.labels

    @property
    def processes(self) -> dict[int, Process]:
        """The processes so far, by the number in field ``c`` of SATP_WRITE events."""
        assert self._reader is not None
        return self._reader.processes

    @property
    def instructions(self) -> int:
        """How many instructions the guest had retired when the last batch was sent."""
        assert self._reader is not None
        return self._reader.instructions

    @property
    def begin_place(self) -> Place | None:
        """Where the region began; None before that, and if it began with the machine."""
        return self._reader.begin if self._reader is not None else None

    @property
    def end_place(self) -> Place | None:
        """Where the region ended; None before that, and if it ended with the machine."""
        return self._reader.end if self._reader is not None else None

    @property
    def calls(self) -> list[int]:
        """What :attr:`StreamReader.calls` says."""
        return self._reader.calls if self._reader is not None else []

    @property
    def summary(self) -> Summary | None:
        """What the plugin says when it ends; None before that."""
        return self._reader.summary if self._reader is not None else None


def _check_limit(text: str) -> None:
    kind, _, rest = text.partition(":")
    if text in ("boot", "end", "request"):
        return
    if kind == "mark" and 1 <= len(rest.encode()) <= LABEL_LARGEST and rest.isascii():
        return
    if kind == "pc":
        try:
            int(rest, 0)
            return
        except ValueError:
            pass
    raise UsageError(
        f"{text!r} is not an edge of a region: write boot, end, request, mark:LABEL or pc:ADDRESS"
    )
