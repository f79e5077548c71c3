#!/usr/bin/env python3
"""Benchmark: what a trace costs on disk, and how fast the models run over it.

    scripts/bench_replay.py [--json] [--model NAME[:K=V,..],..] [--encodings] [TRACE...]

Without a TRACE (a folder that `cosim capture -o` wrote) it captures two: ``boot``, the linux guest
from reset to power-off, and ``fork``, the workloads guest's stress-ng --fork.  ``--synthetic N``
takes a made-up guest's N events instead, without QEMU.  All figures of a trace come from one run;
times are processor time, best of three, so that a second is one of one core and the ratios hold on
a busy machine:

- ``read``: events per second of reading and decoding the Parquet files alone;
- ``policies.NAME``: events per second of that model fed from memory;
- ``judge``: events per second of judging the answers of all of them, and its ratio to the mean of
  the models;
- ``replay``: events per second of all of them from disk, and its ratio to the sum of the parts;
- ``separate_over_together``: the time of a replay of each model alone, added up, over that of one
  replay of all: what is gained by reading and judging once;
- ``write``: events per second of writing the trace again, and bytes per event;
- ``peak_memory``: resident bytes at most of a `cosim replay` process over the whole trace, and its
  ratio to that over the trace's first quarter: memory does not grow with the length;
- ``encodings`` (option): bytes per event and speed of the columns encoded in other ways.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import measured
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from synthetic_guest import RAM_BASE, RAM_SIZE, SyntheticGuest

from cosim.models.comparison import Comparison
from cosim.models.model_options import DEFAULT_MODELS, make_pipeline, split_models
from cosim.models.pipeline import Pipeline
from cosim.models.result import Ending, Origin
from cosim.output import note
from cosim.trace import schema
from cosim.trace.reader import TraceReader
from cosim.trace.writer import SEGMENT_EVENTS, TraceWriter
from hypervisor_model.events import EventBatch
from hypervisor_model.policies import MachineModel, Stream, make

ROUNDS = 3
IN_MEMORY = 1 << 21
"""Events that are held in memory at most (100 MB)."""


def best(task: Callable[[], object]) -> float:
    """Processor seconds of the fastest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        task()
        times.append(time.process_time() - started)
    return min(times)


def first(trace: TraceReader, limit: int) -> Iterator[EventBatch]:
    """The batches of the first ``limit`` events, read as they are asked for."""
    for batch in trace.batches():
        yield batch[:limit]
        limit -= min(limit, len(batch))
        if not limit:
            break


def synthetic(folder: Path, events: int) -> None:
    """A trace of ``events`` events: one stretch of a synthetic guest, again and again."""
    origin = Origin(
        guest={"name": "synthetic"},
        backend="plugin",
        region={"from": "boot", "to": "power-off"},
        stream=Stream("all"),
        machine=MachineModel(ram_base=RAM_BASE, ram_size=RAM_SIZE),
    )
    stretch = np.concatenate(list(SyntheticGuest().batches(min(events, 200_000))))
    with TraceWriter(folder, origin) as writer:
        while writer.events < events:
            writer.write(stretch)
            stretch["icount"] += stretch["icount"][-1] - stretch["icount"][0] + 1
        writer.close(Ending(complete=True))


def captured(folder: Path) -> list[Path]:
    """Traces of the Linux boot and of a fork-heavy program, captured through the plugin."""
    note("capturing boot")
    measured.cosim("capture", "linux", "--from", "boot", "-o", folder / "boot")
    note("capturing fork")
    words = ("workloads", "--workload", "stress-fork:test")
    measured.cosim("capture", *words, "-o", folder / "fork")
    return [folder / "boot", folder / "fork"]


def copy(trace: TraceReader, folder: Path, batches: Iterator[EventBatch]) -> None:
    with TraceWriter(folder, trace.origin) as writer:
        for number, text in trace.labels.items():
            writer.label(number, text)
        for batch in batches:
            writer.write(batch)
        writer.close(trace.ending)


def measure(folder: Path, models: list[str], *, encodings: bool) -> dict[str, Any]:
    trace = TraceReader(folder)
    sample = list(first(trace, IN_MEMORY))
    events = sum(map(len, sample))

    def feed(consumer: Any) -> None:
        for batch in sample:
            consumer.feed(batch)

    def fresh(name: str) -> Any:
        return make(name, trace.origin.machine, trace.origin.stream)

    def fed(name: str) -> None:
        feed(fresh(name))

    policies: dict[str, float] = {}
    for name in models:
        fed(name)  # Compiles.
        policies[name] = best(partial(fed, name))
    answers = []
    for name in models:
        policy = fresh(name)
        answers.append([policy.feed(batch) for batch in sample])

    def judge() -> None:
        comparison = Comparison(trace.origin.machine, models)
        for batch, *given in zip(sample, *answers, strict=True):
            comparison.feed(batch, dict(zip(models, given, strict=True)))

    judged = best(judge)
    whole = best(lambda: feed(make_pipeline(trace.origin, models)))
    read = best(lambda: sum(map(len, first(trace, events))))

    def replay(names: list[str]) -> None:
        pipeline: Pipeline = make_pipeline(trace.origin, names)
        for batch in first(trace, events):
            pipeline.feed(batch)

    replayed = best(partial(replay, models))
    separate = sum(best(partial(replay, [name])) for name in models)
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as scratch:
        part = Path(scratch)
        started = time.process_time()
        copy(trace, part / "sample", iter(sample))
        written = time.process_time() - started
        copy(trace, part / "quarter", first(trace, max(1, trace.events // 4)))
        sizes = [
            measured.cosim("replay", path, "--json", "--model", ",".join(models)).peak_memory
            for path in (part / "quarter", folder)
        ]
    result = {
        "trace": str(folder),
        "events": trace.events,
        "measured_events": events,
        "bytes_per_event": trace.size / trace.events,
        "write_per_second": events / written,
        "read_per_second": events / read,
        "policies": {
            name: {"per_second": events / seconds, "over_read": seconds / read}
            for name, seconds in policies.items()
        },
        "judge_per_second": events / judged,
        "judge_over_policy": judged * len(models) / sum(policies.values()),
        "all_from_memory_per_second": events / whole,
        "replay_per_second": events / replayed,
        "replay_over_memory": replayed / whole,
        "separate_over_together": separate / replayed,
        "peak_memory": sizes[1],
        "peak_memory_whole_over_quarter": sizes[1] / sizes[0],
    }
    if encodings:
        result["encodings"] = compare_encodings(np.concatenate(sample))
    return result


def compare_encodings(batch: EventBatch) -> dict[str, dict[str, float]]:
    small, wide = ["kind", "hart", "priv", "sub", "flags", "size"], ["pc", "a", "b", "c"]
    delta = {"event": "DELTA_BINARY_PACKED", "icount": "DELTA_BINARY_PACKED"}
    variants: dict[str, tuple[Any, Any]] = {
        "wide plain": (small, {**delta, **dict.fromkeys(wide, "PLAIN")}),
        "wide delta": (small, {**delta, **dict.fromkeys(wide, "DELTA_BINARY_PACKED")}),
        "wide byte-stream-split": (small, {**delta, **dict.fromkeys(wide, "BYTE_STREAM_SPLIT")}),
        "wide dictionary": (small + wide, delta),
        "icount plain": (small, dict.fromkeys(["event", "icount", *wide], "PLAIN")),
        "dictionary everywhere": (True, None),
    }
    tables = [
        pq.read_table(pa.BufferReader(schema.CURRENT.encode(batch[at : at + SEGMENT_EVENTS], at)))
        for at in range(0, len(batch), SEGMENT_EVENTS)
    ]
    results = {}
    for name, (dictionary, encoding) in variants.items():
        for codec, level in (("zstd", 1), ("zstd", 3), ("zstd", 6), ("snappy", None)):
            files: list[bytes] = []

            def write(
                files: list[bytes] = files,
                codec: str = codec,
                level: int | None = level,
                dictionary: Any = dictionary,
                encoding: Any = encoding,
            ) -> None:
                files.clear()
                for table in tables:
                    sink = io.BytesIO()
                    pq.write_table(
                        table,
                        sink,
                        compression=codec,
                        compression_level=level,
                        use_dictionary=dictionary,
                        column_encoding=encoding,
                        max_rows_per_page=SEGMENT_EVENTS,
                        data_page_size=1 << 24,
                    )
                    files.append(sink.getvalue())

            def read(files: list[bytes] = files) -> None:
                for data in files:
                    pq.read_table(pa.BufferReader(data), use_threads=False)

            written = best(write)
            results[f"{name}, {codec}{'' if level is None else level}"] = {
                "bytes_per_event": sum(map(len, files)) / len(batch),
                "write_per_second": len(batch) / written,
                "read_per_second": len(batch) / best(read),
            }
    return results


def show(result: dict[str, Any]) -> None:
    print(f"{result['trace']}: {result['events']:,} events, {result['bytes_per_event']:.2f} B each")
    print(f"  write {result['write_per_second'] / 1e6:8.2f} M events/s")
    print(f"  read  {result['read_per_second'] / 1e6:8.2f} M events/s")
    for name, figures in result["policies"].items():
        speed = figures["per_second"] / 1e6
        print(f"  {name:24} {speed:8.2f} M events/s, {figures['over_read']:6.1f} x reading")
    speed, ratio = result["judge_per_second"] / 1e6, result["judge_over_policy"]
    print(f"  judging their answers    {speed:8.2f} M events/s, {ratio:6.2f} x a policy")
    print(f"  all, from memory {result['all_from_memory_per_second'] / 1e6:8.2f} M events/s")
    ratio = result["replay_over_memory"]
    print(f"  all, replayed    {result['replay_per_second'] / 1e6:8.2f} M events/s, {ratio:.2f} x")
    print(f"  each alone takes {result['separate_over_together']:.2f} x the time of all together")
    ratio = result["peak_memory_whole_over_quarter"]
    print(f"  peak memory {result['peak_memory'] / 1e6:.0f} MB, {ratio:.2f} x that of a quarter")
    for name, figures in result.get("encodings", {}).items():
        print(
            f"  {name:36} {figures['bytes_per_event']:6.2f} B, write "
            f"{figures['write_per_second'] / 1e6:5.2f}, read "
            f"{figures['read_per_second'] / 1e6:5.2f} M events/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--model", action="append", default=[], metavar="NAME[:K=V,..],..")
    parser.add_argument("--synthetic", type=int, metavar="N", help="events of a made-up guest")
    parser.add_argument("--encodings", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    models = split_models(options.model) or list(DEFAULT_MODELS)
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as scratch:
        traces = options.traces
        if options.synthetic is not None:
            traces = [*traces, Path(scratch) / "synthetic"]
            synthetic(traces[-1], options.synthetic)
        elif not traces:
            traces = captured(Path(scratch))
        results = [measure(trace, models, encodings=options.encodings) for trace in traces]
    if options.json:
        print(json.dumps({"traces": results}, indent=2))
    else:
        for result in results:
            show(result)


if __name__ == "__main__":
    main()
