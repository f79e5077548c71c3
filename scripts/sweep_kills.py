"""Kill workers of a sweep at random, and compare its table with that of an undisturbed sweep.

Two sweeps do the same tasks over a synthetic trace.  During the second one, worker processes are
killed (SIGKILL) at random times.  All rows must be there, and all counts must be the same.

Example: python scripts/sweep_kills.py --tasks 200 --kills 20 --json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from bench_replay import synthetic

MODELS = ("native", "shadow", "lsp", "nested")
_PERSONAL = ("seconds", "finished")
"""Columns that no two sweeps have in common."""
_PATIENCE = 120.0
"""Seconds without a finished task after which a sweep is taken for dead."""


def write_file(folder: Path, tasks: int, models: Sequence[str] = MODELS) -> Path:
    """Write a sweep file of at least so many tasks over the trace ``made``; return its path."""
    shapes = -(-tasks // len(models))
    file = folder / "kills.toml"
    file.write_text(
        "[sweep]\n"
        f"models = {json.dumps(list(models))}\n"
        "per_task = 1\n"
        '[sweep.traces]\nmade = "made"\n'
        f"[sweep.matrix]\nmachine.footprint_data = {list(range(shapes))}\n"
    )
    return file


def workers(command: int) -> list[int]:
    """Return the worker processes of the sweep that is the process ``command``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == command and stat[0] != "Z" and b"spawn_main" in words:
            found.append(int(entry.name))
    return found


def sweep(file: Path, output: Path, kills: int, tasks: int, seed: int) -> dict[str, Any]:
    """Do the sweep of ``file``, and kill so many workers; return its JSON and the kills.

    The kills are spread over the tasks, so that their number does not depend on this machine.
    """
    random_numbers = random.Random(seed)
    words = [sys.executable, "-c", "from cosim.start import main; main()", "sweep", str(file)]
    started = time.monotonic()
    with subprocess.Popen([*words, "-o", str(output), "--json"], stdout=subprocess.PIPE) as command:
        at = sorted(random_numbers.sample(range(1, tasks - 1), kills))
        killed = 0
        last, moved = 0, started
        while command.poll() is None and killed < kills:
            done = len(list((output / "results").glob("*.parquet")))
            if done != last:
                last, moved = done, time.monotonic()
            if time.monotonic() - moved > _PATIENCE:
                command.kill()
                raise SystemExit(f"no task has ended for {_PATIENCE:.0f} s")
            if done >= at[killed]:
                there = workers(command.pid)
                if there:
                    os.kill(random_numbers.choice(there), signal.SIGKILL)
                    killed += 1
            # At random moments of a task.
            time.sleep(random_numbers.uniform(0.01, 0.1))
        text = command.communicate()[0]
    document: dict[str, Any] = json.loads(text)
    return {**document, "killed": killed, "wall_seconds": round(time.monotonic() - started, 1)}


def table(output: Path) -> list[dict[str, Any]]:
    """Return all rows of the sweep in ``output``, in the order of their keys."""
    rows = []
    for file in (output / "results").glob("*.parquet"):
        rows += pq.read_table(file).drop_columns(list(_PERSONAL)).to_pylist()
    return sorted(rows, key=lambda row: row["key"])


def compare(folder: Path, tasks: int, kills: int, events: int, seed: int) -> dict[str, Any]:
    """Do both sweeps in ``folder``; return what they gave, and if their tables are the same."""
    synthetic(folder / "made", events)
    file = write_file(folder, tasks)
    calm = sweep(file, folder / "calm", 0, tasks, seed)
    stormy = sweep(file, folder / "stormy", kills, tasks, seed)
    one, other = table(folder / "calm"), table(folder / "stormy")
    return {
        "tasks": calm["tasks"],
        "rows": len(one),
        "rows_after_kills": len(other),
        "kills": stormy["killed"],
        "same_table": one == other,
        "missing": stormy["missing"],
        "failures": stormy["failures"],
        "seconds": calm["wall_seconds"],
        "seconds_with_kills": stormy["wall_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--events", type=int, default=200_000, help="events of the trace")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if not 0 <= options.kills <= options.tasks - 2:
        parser.error("--kills must be less than the number of tasks")
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), options.tasks, options.kills, options.events, options.seed)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            print(f"{key}: {value}")
    sys.exit(not found["same_table"])


if __name__ == "__main__":
    main()
