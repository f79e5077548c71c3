#!/usr/bin/env python3
"""Benchmark: what a sweep costs beside its replays, and how many tasks the command can give out.

    scripts/bench_sweep.py [--json] [--tasks N] [--events N] [--rounds N] [--empty N,N,..]

The tasks go to workers of this machine over a synthetic trace, without QEMU.  All figures come
from one run, and those that are compared are measured in turns:

- ``overhead``: tasks done by a sweep (Dask's scheduler, workers, files of results) against the same
  replays in as many plain processes, with 1 and with 2 workers.  Starting the processes does not
  count.  ``beside_replays`` is the processor time of the sweep's processes that is not in their
  replays, over that in them.  It compares one process with itself, so that other work on the
  machine hardly changes it.  ``processor_ratio`` compares the processor time of the sweep with that
  of the bare replays, and ``wall_ratio`` their wall times.  Both need a quiet machine.  All are
  medians over the rounds;
- ``idle``: the part of a processor that Dask takes in the command and in each worker while no task
  runs;
- ``empty``: tasks that do nothing, with 2 workers.  The command holds the plan, the client and the
  scheduler, so ``processor_seconds_per_task`` of its process says how many tasks it gives out per
  second at most.  ``peak_memory`` is of that process, and ``peak_memory_planned`` is
  what it was before the first task was given out.  ``memory_per_task`` is what each task has added
  since the size before;
- ``again``: what each file of results costs when the same command is typed again;
- ``computed``: from these figures, not measured: for so many workers the shortest mean task that
  keeps all of them busy, and what they read from the traces' storage.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench_replay import synthetic

from cosim.output import note
from cosim.sweep import result_files, worker
from cosim.sweep.cluster import Wish, opened
from cosim.sweep.engine import work_off
from cosim.sweep.feeding import feed
from cosim.sweep.grid import configuration
from cosim.sweep.task_plan import SweptTrace, Task, code_version, make_plan, open_trace
from cosim.sweep.worker import TaskReport, run_task, tool_version

MODELS = ("native", "shadow", "lsp", "nested")
WORKERS = (1, 2)
LOOKED_AT = 1000
"""Files of results that the command looks at when it is typed again."""
IDLE = 5.0
"""Seconds in which idle workers are watched."""
SCALES = (10, 100, 1000)
_SPAWN = multiprocessing.get_context("spawn")


class Spent(NamedTuple):
    """What some tasks took, without starting the processes."""

    processor: float
    """Seconds of all processes."""
    wall: float
    replays: float | None = None
    """Of the processor seconds, those in replays; None for empty tasks."""


class Watched:
    """Takes the place of a worker's ``feed``, and adds up the processor time in it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        # Reading has no threads there, so all of a replay is in this one.
        started = time.thread_time()
        try:
            return feed(*arguments)
        finally:
            self.seconds += time.thread_time() - started


def _watch() -> None:
    vars(worker)["feed"] = Watched()


def _in_replays() -> float:
    return float(vars(worker)["feed"].seconds)


def plan(folder: Path, trace: Path, tasks: int, models: Sequence[str]) -> tuple[Task, ...]:
    """Tasks as a sweep has them: each has all ``models`` on one machine, and one cost table."""
    configurations = [
        configuration(model, {}, {"footprint_data": one % 1000, "footprint_code": one // 1000}, {})
        for one in range(tasks)
        for model in models
    ]
    made = make_plan(
        folder,
        [SweptTrace.read("made", str(trace))],
        configurations,
        set(),
        code=code_version(),
        version=tool_version(),
        workers=1,
        most=len(models),
    )
    return made.tasks


def replay(task: Task) -> None:
    feed(open_trace(task.place), [one.replay for one in task.wanted])


def _replay_share(tasks: Sequence[Task], barrier: Any) -> Spent:
    replay(tasks[0])  # Loads the compiled kernels.
    barrier.wait()
    wall, processor = time.monotonic(), time.process_time()
    for task in tasks:
        replay(task)
    return Spent(time.process_time() - processor, time.monotonic() - wall)


def bare(tasks: Sequence[Task], workers: int) -> Spent:
    """The replays of ``tasks`` alone, in ``workers`` processes."""
    with _SPAWN.Manager() as manager, ProcessPoolExecutor(workers, _SPAWN) as pool:
        barrier = manager.Barrier(workers)
        shares = [tasks[one::workers] for one in range(workers)]
        spent = list(pool.map(_replay_share, shares, [barrier] * workers))
    return Spent(sum(one.processor for one in spent), max(one.wall for one in spent))


def swept(
    tasks: Sequence[Task], workers: int, folder: Path, run: Callable[[Task], TaskReport] | None
) -> tuple[Spent, float]:
    """``tasks`` as a sweep does them, or with ``run`` instead; the command's processor seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    result_files.prepare(folder)
    with opened(Wish(workers=workers), folder, note) as cluster:
        if run is None:
            # Loads what a worker needs, as the bare replays do.
            cluster.client.run(run_task, tasks[0])
            cluster.client.run(_watch)
        there = sum(cluster.client.run(time.process_time).values())
        wall, processor = time.monotonic(), time.process_time()
        for finished in work_off(cluster, tasks, run or run_task):
            if finished.report.failures:
                raise SystemExit(f"bench_sweep: {finished.report.failures[0].why}")
        elapsed = time.monotonic() - wall
        own = time.process_time() - processor
        there = sum(cluster.client.run(time.process_time).values()) - there
        replays = None if run else sum(cluster.client.run(_in_replays).values())
    return Spent(own + there, elapsed, replays), own


def overhead(folder: Path, tasks: Sequence[Task], workers: int, rounds: int) -> dict[str, Any]:
    pairs = []
    for number in range(rounds):
        note(f"overhead: {workers} workers, round {number + 1} of {rounds}")
        alone = bare(tasks, workers)
        pairs.append((alone, swept(tasks, workers, folder, None)[0]))
    processor = [sweep.processor / alone.processor for alone, sweep in pairs]
    wall = [sweep.wall / alone.wall for alone, sweep in pairs]
    beside = [sweep.processor / sweep.replays - 1 for _, sweep in pairs if sweep.replays]
    each = [(sweep.processor - alone.processor) / len(tasks) for alone, sweep in pairs]
    seconds = median(alone.processor for alone, _ in pairs)
    return {
        "workers": workers,
        "tasks": len(tasks),
        "replay_seconds_per_task": seconds / len(tasks),
        "model_events_per_second": sum(task.work for task in tasks) / seconds,
        "beside_replays": median(beside),
        "beside_replays_rounds": beside,
        "processor_ratio": median(processor),
        "processor_ratios": processor,
        "wall_ratio": median(wall),
        "wall_ratios": wall,
        "overhead_seconds_per_task": median(each),
    }


def nothing(task: Task) -> TaskReport:
    """Run in place of a task."""
    return TaskReport(task.rows, 0, 0.0)


def _peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def _give_out(folder: Path, trace: Path, count: int) -> dict[str, Any]:
    started = time.process_time()
    tasks = plan(folder, trace, count, MODELS[:1])
    planned = time.process_time() - started
    memory = _peak_memory()
    spent, own = swept(tasks, WORKERS[-1], folder, nothing)
    return {
        "tasks": count,
        "seconds": spent.wall,
        "tasks_per_second": count / spent.wall,
        "processor_seconds_per_task": own / count,
        "planning_seconds_per_row": planned / count,
        "peak_memory_planned": memory,
        "peak_memory": _peak_memory(),
    }


def empty(folder: Path, trace: Path, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Empty tasks, each number of them in a process that has done nothing else."""
    found: list[dict[str, Any]] = []
    for count in sorted(counts):
        note(f"empty tasks: {count:,}")
        with ProcessPoolExecutor(1, _SPAWN) as pool:
            figures = pool.submit(_give_out, folder, trace, count).result()
        figures["memory_per_task"] = None
        if found:
            grown = figures["peak_memory"] - found[-1]["peak_memory"]
            figures["memory_per_task"] = grown / (count - found[-1]["tasks"])
        found.append(figures)
    return found


def idle(folder: Path) -> dict[str, float]:
    """The part of a processor that Dask takes while no task runs."""
    note("idle workers")
    result_files.prepare(folder)
    workers = WORKERS[-1]
    with opened(Wish(workers=workers), folder, note) as cluster:
        there = sum(cluster.client.run(time.process_time).values())
        own, started = time.process_time(), time.monotonic()
        time.sleep(IDLE)
        elapsed, own = time.monotonic() - started, time.process_time() - own
        there = sum(cluster.client.run(time.process_time).values()) - there
    return {"command": own / elapsed, "worker": there / workers / elapsed}


def again(folder: Path, results: Path) -> dict[str, float]:
    """What a look at each of many files of results costs; ``results`` has some."""
    one = next((results / result_files.RESULTS).glob("*.parquet"))
    result_files.prepare(folder)
    for number in range(LOOKED_AT):
        shutil.copy(one, folder / result_files.RESULTS / f"{number}.parquet")
    started = time.process_time()
    result_files.known_keys(folder, code_version())
    spent = time.process_time() - started
    return {"files": LOOKED_AT, "processor_seconds_per_file": spent / LOOKED_AT}


def computed(figures: dict[str, Any], together: int = 16) -> list[dict[str, float]]:
    """What follows for more workers than there are here.

    :param together: models that read a trace together.
    """
    given = figures["empty"][-1]["processor_seconds_per_task"]
    rate = figures["overhead"][0]["model_events_per_second"]
    return [
        {
            "workers": workers,
            "shortest_task_seconds": workers * given,
            "read_bytes_per_second": workers * rate / together * figures["bytes_per_event"],
        }
        for workers in SCALES
    ]


def measure(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    trace, small = scratch / "trace", scratch / "small"
    synthetic(trace, options.events)
    synthetic(small, 1000)
    tasks = plan(scratch / "sweep", trace, options.tasks, MODELS)
    made = open_trace(str(trace))
    figures: dict[str, Any] = {
        "processors": len(os.sched_getaffinity(0)),
        "events": made.events,
        "models_per_task": len(MODELS),
        "bytes_per_event": made.size / made.events,
        "overhead": [
            overhead(scratch / "sweep", tasks, workers, options.rounds) for workers in WORKERS
        ],
        "idle": idle(scratch / "idle"),
        "empty": empty(scratch / "empty", small, options.empty),
        "again": again(scratch / "again", scratch / "sweep"),
    }
    return {**figures, "computed": computed(figures)}


def show(figures: dict[str, Any]) -> None:
    for one in figures["overhead"]:
        print(
            f"{one['workers']} workers, {one['tasks']} tasks of "
            f"{one['replay_seconds_per_task']:.2f} s: {one['beside_replays']:.1%} of the processor "
            f"time in replays beside them; {one['processor_ratio']:.3f} x the processor time of "
            f"bare replays, {one['wall_ratio']:.3f} x the wall time, "
            f"{one['overhead_seconds_per_task'] * 1000:.1f} ms each"
        )
    shares = figures["idle"]
    print(
        f"idle: {shares['command']:.1%} of a processor in the command, "
        f"{shares['worker']:.1%} in each worker"
    )
    for one in figures["empty"]:
        grown = one["memory_per_task"]
        print(
            f"{one['tasks']:,} empty tasks: {one['tasks_per_second']:.0f} per second, "
            f"{one['processor_seconds_per_task'] * 1000:.2f} ms of the command each, "
            f"{one['planning_seconds_per_row'] * 1e6:.0f} us to plan each, "
            f"peak memory {one['peak_memory'] / 1e6:.0f} MB "
            f"({one['peak_memory_planned'] / 1e6:.0f} MB planned)"
            + ("" if grown is None else f", {grown / 1000:.2f} kB for each further task")
        )
    looked = figures["again"]["processor_seconds_per_file"]
    print(f"the same command again: {looked * 1000:.2f} ms for each file of results")
    print("computed, not measured:")
    for one in figures["computed"]:
        print(
            f"  {one['workers']:5,} workers: tasks of {one['shortest_task_seconds']:.2f} s at "
            f"least, reading {one['read_bytes_per_second'] / 1e6:.0f} MB/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=12, help="tasks that replay (12)")
    parser.add_argument("--events", type=int, default=1_000_000, help="of the trace (1,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of a sweep and bare replays (3)")
    parser.add_argument(
        "--empty",
        type=lambda text: [int(one) for one in text.split(",")],
        default=[1000, 10_000, 100_000],
        metavar="N,N,..",
        help="numbers of empty tasks (1000,10000,100000: up to 20 minutes)",
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.tasks < 4:
        parser.error("--tasks must be at least 4, or the plan makes smaller ones")
    with tempfile.TemporaryDirectory(prefix="cosim-bench-") as scratch:
        figures = measure(Path(scratch), options)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)


if __name__ == "__main__":
    main()
