"""The plugin's stream: blocks with a sequence number and a checksum, read from a socket.

A block is a 48-byte header (``block_header`` in ``stream.h``) and its payload.  Events come as
records of :data:`hypervisor_model.events.EVENT`.  Anything wrong with the stream ends it with an
error; each batch that comes out was checked.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cosim.capture.processes import Process, shown_name
from cosim.errors import MachineError
from hypervisor_model.events import EVENT, EventBatch

_HEADER = struct.Struct("<IHHQQQQQ")
_SUMMED = 32
"""Bytes of the header before the checksum."""
_MAGIC = int.from_bytes(b"CSPE", "little")
_VERSION = 3
_LARGEST = 16 << 20
_END = struct.Struct("<8Q")
_PLACE = struct.Struct("<36Q")
_PROCESS = struct.Struct("<II16s")


class _Block(IntEnum):
    EVENTS = 1
    LABEL = 2
    END = 3
    PLACE = 4
    CALLS = 5
    PROCESSES = 6


def checksum(*parts: bytes | bytearray) -> tuple[int, int]:
    """Return Fletcher's checksum over the 64-bit words of ``parts``, each filled up with zeros.

    It is the sum of the words, and the sum of that sum after each word, both modulo 2^64.
    """
    words, sums = 0, 0
    for part in parts:
        spare = -len(part) % 8
        values = np.frombuffer(part + bytes(spare) if spare else part, dtype="<u8")
        weights = np.arange(len(values), 0, -1, dtype=np.uint64)
        sums += len(values) * words + int((values * weights).sum(dtype=np.uint64))
        words += int(values.sum(dtype=np.uint64))
    return words % (1 << 64), sums % (1 << 64)


@dataclass(frozen=True)
class Place:
    """Where an edge of the region is: before the instruction at ``general[32]``."""

    instructions: int
    """How many instructions QEMU had executed, by its own count, or a few less.  The plugin cannot
    tell if QEMU counted an instruction that does not exist."""
    retired: int
    """How many of them had retired."""
    general: tuple[int, ...]
    """x0..x31 and pc."""

    @property
    def pc(self) -> int:
        """The address of the instruction that stands behind the edge."""
        return self.general[32]


@dataclass(frozen=True)
class Summary:
    """What the plugin says when it ends.

    The audit compared the plugin's copy of every live table with RAM.
    """

    region_ended: bool
    """True if the end of the region was reached; False if the machine ended first."""
    never_started: bool
    """True if the beginning of the region was not reached."""
    events: int
    instructions: int
    """Instructions retired within the region."""
    tables: int
    """Pages that the audit compared."""
    entries: int
    """Entries that the audit compared."""
    missed: int
    """Entries that differ."""
    hardware_ad_updates: int
    """Entries in which the MMU was found to have set A or D; each was an event."""


class StreamReader:
    """Reads the stream.

    :param line: our end of the socket; its time-out is the longest silence that is allowed.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._sequence = 0
        self.labels: list[str] = []
        """The labels of the marks so far, by number."""
        self.processes: dict[int, Process] = {}
        """The processes so far, by the number in field ``c`` of SATP_WRITE events."""
        self.instructions = 0
        """How many instructions the guest had retired when the last block was sent."""
        self.summary: Summary | None = None
        """What the plugin says when it ends; None before that."""
        self.events = 0
        """How many events came so far."""
        self.begin: Place | None = None
        """Where the region began; None before that, and if it began with the machine."""
        self.end: Place | None = None
        """Where the region ended; None before that, and if it ended with the machine."""
        self.calls: list[int] = []
        """How many instructions had retired at each instruction of the region that did not retire
        and that QEMU's own count includes, in rising order.  Empty for several harts."""

    def batches(self) -> Iterator[EventBatch]:
        """Yield the events, one batch for each block, until the plugin's end record.

        :raises MachineError: when the stream is cut or damaged, or silent for too long.
        """
        while self.summary is None:
            kind, payload = self._block()
            if kind == _Block.EVENTS:
                if len(payload) % EVENT.itemsize:
                    raise MachineError("the plugin's stream is damaged: a block with half an event")
                batch: EventBatch = np.frombuffer(payload, dtype=EVENT)
                self.events += len(batch)
                yield batch
            elif kind == _Block.LABEL:
                self.labels.append(bytes(payload).decode("ascii", "backslashreplace"))
            elif kind == _Block.PLACE:
                self._place(payload)
            elif kind == _Block.CALLS:
                self.calls += np.frombuffer(payload, dtype=np.uint64).tolist()
            elif kind == _Block.PROCESSES:
                self._processes(payload)
            elif kind == _Block.END:
                self._end(payload)
            else:
                raise MachineError(f"the plugin's stream is damaged: a block of type {kind}")

    def _block(self) -> tuple[int, bytearray]:
        header = self._read(_HEADER.size)
        magic, version, kind, sequence, instructions, length, *sums = _HEADER.unpack(header)
        if magic != _MAGIC or version != _VERSION or length > _LARGEST:
            raise MachineError(
                "the plugin's stream is damaged: a block was expected, something else came"
            )
        if sequence != self._sequence:
            raise MachineError(
                f"the plugin's stream is damaged: expected block {self._sequence}, got {sequence}"
            )
        payload = self._read(length)
        if checksum(bytes(header[:_SUMMED]), payload) != tuple(sums):
            raise MachineError(
                f"the plugin's stream is damaged: block {sequence} has the wrong checksum"
            )
        self._sequence += 1
        self.instructions = instructions
        return kind, payload

    def _place(self, payload: bytearray) -> None:
        which, instructions, retired, *general = _PLACE.unpack(payload)
        place = Place(instructions, retired, tuple(general))
        if which == 0:
            self.begin = place
        else:
            self.end = place

    def _processes(self, payload: bytearray) -> None:
        if len(payload) % _PROCESS.size:
            raise MachineError("the plugin's stream is damaged: a block with half a process")
        for number, pid, comm in _PROCESS.iter_unpack(payload):
            self.processes[number] = Process(pid, shown_name(comm))

    def _end(self, payload: bytearray) -> None:
        region, waiting, events, instructions, tables, entries, missed, hardware_ad = _END.unpack(
            payload
        )
        if events != self.events:
            raise MachineError(
                f"the plugin's stream is damaged: only {self.events} of {events} events came"
            )
        self.summary = Summary(
            bool(region), bool(waiting), events, instructions, tables, entries, missed, hardware_ad
        )

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            try:
                count = self._line.recv_into(view)
            except TimeoutError:
                raise MachineError("the plugin has been silent for too long") from None
            except OSError as error:
                raise MachineError(f"the plugin's stream broke: {error.strerror}") from None
            if count == 0:
                raise MachineError("the plugin's stream is cut: QEMU ended without closing it")
            view = view[count:]
        return data
