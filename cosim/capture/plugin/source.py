"""The plugin as an event source."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from cosim.capture.decode import CBO_BLOCK
from cosim.capture.plugin import build
from cosim.capture.plugin.limits import FILTER_LARGEST, FILTER_SLOTS
from cosim.capture.plugin.stream import StreamReader, Summary
from cosim.errors import MissingTool, UsageError
from cosim.machine.qemu import OFF_SWITCH
from hypervisor_model.events import EventBatch

LABEL_LARGEST = 32

USER_MARK = 0x3C05140000
"""Where the mark instruction of programs under Linux stands."""


class PluginSource:
    """Events of one run of QEMU, made by the TCG plugin.

    A context manager: entering compiles and checks the plugin; then pass :meth:`qemu_args` and
    :attr:`pass_fds` to the machine, call :meth:`started` once QEMU runs, and read
    :meth:`batches`.

    :param qemu: the emulator.
    :param memory: bytes of guest RAM.
    :param ram_name: part of the name of QEMU's mapping of guest RAM in ``/proc/PID/maps``.
    :param accesses: ``all`` for ACCESS events, passed through a filter of ``slots`` (a power of
        two up to 512; 1: every change of page; 0: no filter, every fetch, load and store, which
        only tests want); ``none`` for none.
    :param start: where the region begins, before the instruction named: ``boot``, ``mark:LABEL``
        or ``pc:ADDRESS``; ``request``: soon after :meth:`begin`, before a return from a trap.
    :param end: where it ends, before the instruction named: ``end`` (of the machine),
        ``mark:LABEL`` or ``pc:ADDRESS``; ``request``: soon after :meth:`end`.
    :param mark: virtual address of the mark instruction; None: the guest has none.
    :param mark_in_user: the mark counts in U-mode only.
    :param cbo_block: bytes that the CPU's ``cbo.zero`` clears.
    :param timeout: seconds of silence after which :meth:`batches` gives up; None: never.
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
        mark: int | None = USER_MARK,
        mark_in_user: bool = True,
        cbo_block: int = CBO_BLOCK,
        timeout: float | None = None,
    ) -> None:
        if slots & (slots - 1) or not 0 <= slots <= FILTER_LARGEST:
            raise UsageError(
                f"the access filter has a power of two up to {FILTER_LARGEST} slots, not {slots}"
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
            f"cboz={cbo_block}",
        ]
        if accesses == "all":
            self._options.append(f"filter={slots}")
        if mark is not None:
            self._options += [f"mark={mark:#x}", f"markpriv={'u' if mark_in_user else 'any'}"]
        self._library: Path | None = None
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self._reader: StreamReader | None = None

    def __enter__(self) -> Self:
        """Make it ready.

        :raise MissingTool: no compiler, or a QEMU that does not load the plugin.
        """
        library = build.build()
        build.check_loads(self._qemu, library)
        self._library = library
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(self._timeout)
        self._reader = StreamReader(self._ours)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading: the plugin then stops recording, and the guest may go on."""
        for line in (self._ours, self._theirs):
            if line is not None:
                line.close()
        self._ours = self._theirs = None

    def qemu_args(self) -> list[str]:
        """The arguments that load the plugin, to append to QEMU's."""
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
        """QEMU runs and has its end of the stream: let go of ours, so that its death shows."""
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def begin(self) -> None:
        """Ask that a region with ``start="request"`` begins."""
        self._request(b"b")

    def end(self) -> None:
        """Ask that a region with ``end="request"`` ends."""
        self._request(b"e")

    def _request(self, byte: bytes) -> None:
        if self._ours is not None:
            # A QEMU that is gone shows in `batches`.
            with contextlib.suppress(OSError):
                self._ours.send(byte)

    def batches(self) -> Iterator[EventBatch]:
        """The region's events in program order, to the end of the region or of the machine.

        :raise MachineError: the stream is cut or damaged, or silent for longer than ``timeout``.
        """
        self.started()
        assert self._reader is not None
        yield from self._reader.batches()

    @property
    def labels(self) -> list[str]:
        """Labels of the marks so far; a MARK event's ``a`` is an index into them."""
        assert self._reader is not None
        return self._reader.labels

    @property
    def instructions(self) -> int:
        """Instructions that the guest had retired when the last batch was sent."""
        assert self._reader is not None
        return self._reader.instructions

    @property
    def summary(self) -> Summary | None:
        """What the plugin says at the end; None before it."""
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
        f"{text!r} is no end of a region: write boot, end, request, mark:LABEL or pc:ADDRESS"
    )
