"""A trace as a file for Perfetto (https://ui.perfetto.dev): what happened when, on tracks.

The classes of the package ``perfetto`` write it.  Perfetto's time axis is in nanoseconds.  Here one
nanosecond is one instruction of the guest, counted from the start of the region; if the source does
not know the instruction counts, it is one event.  The tracks are:

- for each hart, the address space that it runs in, and its fences, page faults and marks;
- for each address space, when a hart runs in it, and the stores to page tables made meanwhile.  If
  the process that owns it is known, the track is one of that process, as Perfetto has them;
- for each policy, each exit, by the kind of event that caused it, with its function;
- counters: exits and TLB misses of each policy in windows of equal length.

Packets are written as they are made, so memory does not grow with the trace.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from cosim.capture.processes import Process
from cosim.models.address_spaces import AddressSpaces
from cosim.models.attribution import EVENT_NAMES, Lookup, event_codes
from cosim.output import one_line
from hypervisor_model.events import EventBatch, Kind, Priv, Satp
from hypervisor_model.jit import unsigned

WINDOWS = 2000
"""Values of each counter, about."""
_SEQUENCE = 1
"""All packets are of one writer."""
_TOP = ("harts", "address spaces", "exits", "exits in each window", "TLB misses in each window")
"""The groups of tracks, from above."""
_WITH_ADDRESS = (Kind.ACCESS, Kind.FENCE, Kind.REMOTE_FENCE, Kind.PTE_WRITE, Kind.PAGE_FAULT)
_ON_HART = (Kind.FENCE, Kind.REMOTE_FENCE, Kind.PAGE_FAULT, Kind.MARK)


class PerfettoFile:
    """Writes events, and what policies did at them, as a Perfetto trace.

    :param file: takes the bytes.
    :param title: names the whole.
    :param policies: the names of the models.
    :param instructions: how long the trace is, in instructions or events; decides the windows.
    :param timed: the events have instruction counts.
    :param start: the instruction count at time 0.
    :param labels: the texts of the marks, by number.
    :param lookup: names the addresses of the kernel; None: nothing does.
    :param without_misses: policies that do not count TLB misses.
    :param harts: of the guest.
    :param processes: the processes, by the number in SATP_WRITE events.
    """

    def __init__(
        self,
        file: BinaryIO,
        title: str,
        policies: Sequence[str],
        *,
        instructions: int,
        timed: bool,
        start: int,
        labels: Mapping[int, str],
        lookup: Lookup | None,
        without_misses: Collection[str] = (),
        harts: int = 1,
        processes: Mapping[int, Process] | None = None,
    ) -> None:
        self._write = StreamingTraceProtoBuilder(file).write_packet
        self._policies = tuple(policies)
        self._window = max(-(-instructions // WINDOWS), 1)
        self._timed, self._start = timed, start
        self._labels, self._lookup = labels, lookup
        self._without_misses = without_misses
        self._spaces = AddressSpaces(harts)
        self._processes = processes or {}
        self._process_names = {one.pid: one.name for one in self._processes.values()}
        self._process_tracks: dict[int, int] = {}
        self._now = 0
        self._events = 0
        self._counted = np.zeros((2, len(self._policies)), np.int64)
        self._at = 0
        """The window that is being counted."""
        self._interned: dict[tuple[str, str | bytes], int] = {}
        self._names: dict[int, str] = {}
        self._running: list[int | None] = [None] * harts
        self._begin(title, harts)

    # -- tracks ----------------------------------------------------------------------------------

    def _begin(self, title: str, harts: int) -> None:
        self._tracks = 0
        unit = "instruction of the guest" if self._timed else "event"
        root = self._track(f"{title} (1 ns is 1 {unit})")
        groups = [self._track(name, root, rank) for rank, name in enumerate(_TOP)]
        self._harts = [self._track(f"hart {hart}", groups[0], hart) for hart in range(harts)]
        self._group_of_spaces = groups[1]
        self._space_tracks: dict[int, int] = {}
        exiting = enumerate(self._policies)
        self._exits = [self._track(name, groups[2], rank) for rank, name in exiting]
        self._counters = [
            {
                place: self._track(name, group, place, counter=True)
                for place, name in enumerate(self._policies)
                if name not in without
            }
            for group, without in zip(groups[3:], ((), self._without_misses), strict=True)
        ]

    def _track(
        self, name: str, parent: int | None = None, rank: int = 0, *, counter: bool = False
    ) -> int:
        """Write the descriptor of a track and return its id."""
        self._tracks += 1
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        if self._tracks == 1:
            packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        track = packet.track_descriptor
        track.uuid, track.name, track.sibling_order_rank = self._tracks, name, rank
        track.child_ordering = TrackDescriptor.EXPLICIT
        track.sibling_merge_behavior = TrackDescriptor.SIBLING_MERGE_BEHAVIOR_NONE
        if parent is not None:
            track.parent_uuid = parent
        if counter:
            track.counter.unit_name = "per window"
        self._write(packet)
        return self._tracks

    def _space_track(self, space: int) -> int:
        if space not in self._space_tracks:
            owner = self._spaces.owner(space, self._processes)
            group = self._group_of_spaces if owner is None else self._process_track(owner.pid)
            name = one_line(self._spaces.name(space, self._processes))
            self._space_tracks[space] = self._track(name, group, space)
        return self._space_tracks[space]

    def _process_track(self, pid: int) -> int:
        """Return the track of a process, which the viewer shows with its name and number.

        A process that had several names is called after the last one.
        """
        if pid not in self._process_tracks:
            self._tracks += 1
            packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
            packet.track_descriptor.uuid = self._tracks
            packet.track_descriptor.process.pid = pid
            packet.track_descriptor.process.process_name = one_line(self._process_names[pid])
            self._write(packet)
            self._process_tracks[pid] = self._tracks
        return self._process_tracks[pid]

    # -- events ----------------------------------------------------------------------------------

    def feed(
        self,
        batch: EventBatch,
        exits: Sequence[NDArray[np.int64]],
        misses: Sequence[NDArray[np.int64]],
    ) -> None:
        """Write ``batch``, with the exits and the misses of each policy at each event."""
        if not len(batch):
            return
        times = self._times(batch)
        spaces = self._spaces.feed(batch)
        taken = np.stack([np.stack(exits), np.stack(misses)])
        self._count(times, taken)
        kind = batch["kind"]
        loads = (kind == Kind.SATP_WRITE) & (batch["sub"] == Satp.SATP)
        told = loads | np.isin(kind, (*_ON_HART, Kind.PTE_WRITE)) | taken[0].any(axis=0)
        # The first event of each hart says where it runs.
        told[np.unique(batch["hart"], return_index=True)[1]] = True
        codes = event_codes(batch)
        for index in np.flatnonzero(told).tolist():
            event, time = batch[index], int(times[index])
            hart = int(event["hart"])
            self._run(hart, int(spaces[index]), time)
            name = EVENT_NAMES.get(int(codes[index]), "access")
            if kind[index] in _ON_HART:
                self._instant(self._harts[hart], time, self._title(event, name), event)
            elif kind[index] == Kind.PTE_WRITE:
                self._instant(self._space_track(int(spaces[index])), time, name, event)
            for policy in np.flatnonzero(taken[0, :, index]).tolist():
                number = int(taken[0, policy, index])
                self._instant(self._exits[policy], time, name, event, exits=number)
            if loads[index]:
                self._run(hart, self._spaces.number(int(event["b"]), int(event["c"])), time)
        self._events += len(batch)

    def close(self) -> None:
        """Write what has begun: the last windows, and the ends of what still runs."""
        self._flush(self._at)
        for hart in range(len(self._running)):
            self._leave(hart, self._now)

    def _times(self, batch: EventBatch) -> NDArray[np.int64]:
        """Return the time of each event; it never goes back."""
        if self._timed:
            times = np.where(batch["icount"] < 0, 0, batch["icount"] - self._start)
        else:
            times = self._events + np.arange(len(batch))
        times = np.maximum.accumulate(np.maximum(times, self._now))
        self._now = int(times[-1])
        return times

    def _run(self, hart: int, space: int, time: int) -> None:
        """Let ``hart`` run in ``space`` from ``time`` on."""
        if self._running[hart] == space:
            return
        self._leave(hart, time)
        name = one_line(self._spaces.name(space, self._processes))
        for track in (self._harts[hart], self._space_track(space)):
            text = name if track == self._harts[hart] else f"hart {hart}"
            self._write(self._packet(time, track, TrackEvent.TYPE_SLICE_BEGIN, text))
        self._running[hart] = space

    def _leave(self, hart: int, time: int) -> None:
        space = self._running[hart]
        if space is not None:
            for track in (self._harts[hart], self._space_track(space)):
                self._write(self._packet(time, track, TrackEvent.TYPE_SLICE_END))

    def _instant(self, track: int, time: int, name: str, event: Any, **facts: int) -> None:
        packet = self._packet(time, track, TrackEvent.TYPE_INSTANT, name)
        for key, value in facts.items():
            note = packet.track_event.debug_annotations.add()
            note.name_iid = self._intern(packet, "debug_annotation_names", key)
            note.int_value = value
        pc = unsigned(int(event["pc"]))
        notes = {"pc": pc}
        if event["kind"] in _WITH_ADDRESS:
            notes["address"] = unsigned(int(event["a"]))
        for key, value in notes.items():
            note = packet.track_event.debug_annotations.add()
            note.name_iid = self._intern(packet, "debug_annotation_names", key)
            note.pointer_value = value
        place = "user program" if event["priv"] == Priv.U else self._place(pc)
        if place is not None:
            note = packet.track_event.debug_annotations.add()
            note.name_iid = self._intern(packet, "debug_annotation_names", "function")
            note.string_value_iid = self._intern(
                packet, "debug_annotation_string_values", place.encode()
            )
        self._write(packet)

    def _title(self, event: Any, name: str) -> str:
        if event["kind"] == Kind.MARK:
            number = int(event["a"])
            return self._labels.get(number, f"mark {number}")
        return name

    def _place(self, pc: int) -> str | None:
        if self._lookup is None:
            return None
        if pc not in self._names:
            self._names[pc] = self._lookup(pc) or ""
        return self._names[pc] or None

    # -- counters --------------------------------------------------------------------------------

    def _count(self, times: NDArray[np.int64], taken: NDArray[np.int64]) -> None:
        """Add what was counted, and write the windows that are over."""
        windows = times // self._window
        starts = np.flatnonzero(np.r_[True, windows[1:] != windows[:-1]])
        sums = np.add.reduceat(taken, starts, axis=2)
        for place, start in enumerate(starts.tolist()):
            window = int(windows[start])
            if window != self._at:
                self._flush(self._at)
                if window > self._at + 1:
                    self._flush(self._at + 1)
                self._at = window
            self._counted += sums[:, :, place]

    def _flush(self, window: int) -> None:
        for tracks, counts in zip(self._counters, self._counted.tolist(), strict=True):
            for place, track in tracks.items():
                packet = self._packet(window * self._window, track, TrackEvent.TYPE_COUNTER)
                packet.track_event.counter_value = counts[place]
                self._write(packet)
        self._counted[:] = 0

    # -- packets ---------------------------------------------------------------------------------

    def _packet(
        self, time: int, track: int, kind: TrackEvent.Type, name: str | None = None
    ) -> TracePacket:
        packet = TracePacket(
            trusted_packet_sequence_id=_SEQUENCE,
            timestamp=time,
            sequence_flags=TracePacket.SEQ_NEEDS_INCREMENTAL_STATE,
        )
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        if name is not None:
            packet.track_event.name_iid = self._intern(packet, "event_names", name)
        return packet

    def _intern(self, packet: TracePacket, kind: str, text: str | bytes) -> int:
        """Return the number of ``text``; the first packet that uses it brings it."""
        key = kind, text
        if key not in self._interned:
            self._interned[key] = len(self._interned) + 1
            made = getattr(packet.interned_data, kind).add(iid=self._interned[key])
            setattr(made, "str" if isinstance(text, bytes) else "name", text)
        return self._interned[key]
