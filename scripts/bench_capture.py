#!/usr/bin/env python3
"""Benchmark: what capturing with the TCG plugin costs the guest.

    scripts/bench_capture.py [--json] [--rounds N] [--slots N,...] [--work boot,fork]

QEMU runs the same guest plain and with the plugin in turn; a round is one run of each, and each
ratio is that of the fastest runs.  Time is QEMU's processor time, which neighbours on a busy
machine disturb least; the reader's is apart.

- ``boot``: the linux guest from reset to power-off;
- ``fork``: the workloads guest's stress-ng --fork from its init to power-off;
- ``tables``: fences, ``satp`` writes, table stores, page faults and marks;
- ``accesses.N``: ACCESS events too, with N slots in the first-level filter;
- ``waiting``: the plugin loaded, with a region that never begins;
- ``empty``: another plugin, which is told of each translated block and does nothing.

Also the events and bytes of each run and the private memory that the plugin adds to QEMU at most,
and in each round:

- ``capture``: `cosim capture` of the same run, as a user has it: wall seconds, their ratio to those
  of the plain run, the processor time of the tool and of QEMU together, its ratio to that of the
  whole plain run (a busy machine disturbs it less), and the peak resident memory of the tool, which
  reads and keeps the trace.

QEMU's own ``cache``, ``execlog`` and ``hotpages`` plugins are measured too if the distribution
ships them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import measured

import guest
from cosim.capture.plugin.build import API_VERSION
from cosim.capture.plugin.source import PluginSource
from cosim.errors import CosimError
from cosim.machine import tools
from cosim.machine.configuration import Timing
from cosim.machine.qemu import Machine
from cosim.output import note
from cosim.run.plan import resolve
from cosim.run.run_spec import RunSpec
from cosim.session.backends.plugin import Plugin

_SECONDS = 300.0
_STOCK = ("cache", "execlog", "hotpages")
_TICK = os.sysconf("SC_CLK_TCK")
_EMPTY = f"""
#include <stdint.h>
__attribute__((visibility("default"))) int qemu_plugin_version = {API_VERSION};
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*f)(uint64_t id, void *tb));
static void on_translate(uint64_t id, void *tb) {{ (void)id, (void)tb; }}
__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info,
                                                               int argc, char **argv)
{{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    return 0;
}}
"""


def stock_plugins() -> dict[str, Path]:
    """QEMU's own plugins, where they are installed."""
    folders = [Path(x) for x in ("/usr/lib", "/usr/libexec", "/usr/local/lib")]
    found: dict[str, Path] = {}
    for name in _STOCK:
        for folder in folders:
            for pattern in (f"qemu*/**/lib{name}.so", f"*/qemu*/**/lib{name}.so"):
                for file in folder.glob(pattern):
                    found.setdefault(name, file)
    return found


def empty_plugin(folder: Path) -> Path:
    """Compile a plugin that does nothing; return its library in ``folder``."""
    source, library = folder / "empty.c", folder / "empty.so"
    source.write_text(_EMPTY)
    words: list[str | Path] = [tools.host_compiler().path, "-O2", "-shared", "-fPIC"]
    words += ["-o", library, source]
    subprocess.run(words, check=True)
    return library


def processor_time(pid: int) -> float:
    """Seconds that the process has run so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def children_time() -> float:
    """Seconds that the processes made from here, and ended, have run."""
    times = os.times()
    return times.children_user + times.children_system


def private_memory(pid: int) -> int:
    """Bytes of private memory now (guest RAM is shared and not counted)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _drain(source: PluginSource) -> None:
    for _ in source.batches():
        pass


class Work:
    """A guest and the part of its run that counts: from ``since`` on the console to its end."""

    def __init__(self, name: str, run: str | None, since: str | None) -> None:
        guest.ensure(name, lambda *_: None)
        plan = resolve(RunSpec(name=name, backend=Plugin(), guest=name, workload=run))
        self.guest = name
        self.words = () if run is None else ("--workload", run)
        self.since = since
        self.config = plan.machine
        self.paging = plan.paging

    def run(self, folder: Path, mode: str, library: Path | None = None) -> dict[str, float]:
        """One run; ``mode`` as in this file's docstring, or ``plain``, or a stock plugin's name."""
        qemu = tools.qemu().path
        result: dict[str, float] = {}
        with contextlib.ExitStack() as stack:
            source = None
            arguments: tuple[str, ...] = ()
            descriptors: tuple[int, ...] = ()
            if library is not None:
                arguments = ("-plugin", str(library), "-d", "plugin", "-D", "/dev/null")
            elif mode != "plain":
                kind, _, slots = mode.partition(".")
                source = stack.enter_context(
                    PluginSource(
                        qemu,
                        memory=self.config.memory,
                        accesses="all" if kind == "accesses" else "none",
                        slots=int(slots or 1),
                        start="mark:never" if kind == "waiting" else "boot",
                        timeout=_SECONDS,
                        paging=self.paging,
                    )
                )
                arguments, descriptors = tuple(source.qemu_args()), source.pass_fds
            machine = stack.enter_context(
                Machine(
                    qemu,
                    self.config,
                    folder=folder,
                    # As `cosim capture` runs it.
                    timing=Timing("record", folder / "record.bin", split=frozenset()),
                    plugin_arguments=arguments,
                    pass_fds=descriptors,
                )
            )
            # Power-off pauses the machine, so that its process can still be asked.
            machine.qmp("set-action", shutdown="pause")
            machine.resume()
            reader = threading.Thread(target=_drain, args=(source,)) if source else None
            if reader is not None:
                reader.start()
            before, memory = 0.0, 0
            started = time.monotonic()
            if self.since is not None:
                machine.console.expect(self.since, _SECONDS)
                before = processor_time(machine.pid)
            deadline = time.monotonic() + _SECONDS
            while machine.qmp("query-status")["status"] != "shutdown":
                if time.monotonic() > deadline:
                    raise SystemExit(f"the guest does not power off within {_SECONDS:.0f} s")
                memory = max(memory, private_memory(machine.pid))
                time.sleep(0.05)
            result["seconds"] = processor_time(machine.pid) - before
            result["whole"] = processor_time(machine.pid)
            result["wall"] = time.monotonic() - started
            result["memory"] = memory
            machine.qmp("quit")
            if reader is not None:
                reader.join()
                assert source is not None and source.summary is not None
                result["events"] = source.summary.events
        return result

    def capture(self, folder: Path) -> dict[str, float]:
        """One `cosim capture` of the whole run."""
        before = children_time()
        seconds, memory = measured.cosim(
            *("capture", self.guest, *self.words, "--from", "boot", "--to", "power-off"),
            *("-o", folder / "trace"),
        )
        return {"wall": seconds, "whole": children_time() - before, "memory": memory}


def measure(work: Work, modes: list[str], rounds: int, empty: Path) -> dict[str, Any]:
    """Ratios of every mode to ``plain``; ``empty`` is the plugin that does nothing."""
    stock = stock_plugins()
    libraries = {**stock, "empty": empty}
    best: dict[str, dict[str, float]] = {}
    captures = []
    for _ in range(rounds):
        for mode in [*modes, *stock]:
            with tempfile.TemporaryDirectory(prefix="cosim-bench-") as folder:
                result = work.run(Path(folder), mode, libraries.get(mode))
            note(f"  {mode}: {result['seconds']:.2f} s")
            if mode not in best or result["seconds"] < best[mode]["seconds"]:
                best[mode] = result
        with tempfile.TemporaryDirectory(prefix="cosim-bench-") as folder:
            captures.append(work.capture(Path(folder)))
        note(f"  capture: {captures[-1]['wall']:.2f} s")
    plain = best["plain"]
    document: dict[str, Any] = {"plain_seconds": round(plain["seconds"], 2)}
    for mode, result in best.items():
        if mode == "plain":
            continue
        entry: dict[str, Any] = {"ratio": round(result["seconds"] / plain["seconds"], 2)}
        if "events" in result:
            entry["events"] = int(result["events"])
            entry["bytes"] = 48 * int(result["events"])
            entry["memory_added"] = int(max(0, result["memory"] - plain["memory"]))
        document[mode] = entry
    for name in _STOCK:
        if name not in stock:
            document[name] = None
    capture = min(captures, key=lambda one: one["wall"])
    document["capture"] = {
        "seconds": round(capture["wall"], 2),
        "wall_ratio": round(capture["wall"] / plain["wall"], 2),
        "processor_seconds": round(capture["whole"], 2),
        "processor_ratio": round(capture["whole"] / plain["whole"], 2),
        "peak_memory": int(capture["memory"]),
    }
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", default="64", help="filter sizes to measure")
    parser.add_argument("--work", default="boot,fork")
    options = parser.parse_args()
    modes = ["plain", "empty", "waiting", "tables"]
    modes += [f"accesses.{slots}" for slots in options.slots.split(",")]
    document: dict[str, Any] = {
        "format": "lsp-cosim-bench-capture",
        "qemu": tools.qemu().text,
        "event_bytes": 48,
    }
    try:
        with tempfile.TemporaryDirectory(prefix="cosim-bench-") as folder:
            empty = empty_plugin(Path(folder))
            for name in options.work.split(","):
                note(f"{name}:")
                if name == "boot":
                    work = Work("linux", None, None)
                else:
                    work = Work("workloads", "stress-fork:test", "Run /init as init process")
                document[name] = measure(work, modes, options.rounds, empty)
    except CosimError as error:
        sys.exit(f"bench_capture: {error}")
    if options.json:
        print(json.dumps(document, indent=2))
        return
    for name in options.work.split(","):
        print(f"{name}: plain {document[name]['plain_seconds']} s")
        for mode, entry in document[name].items():
            if mode == "capture":
                print(
                    f"  {mode:15} {entry['wall_ratio']:5.2f}x the wall time, "
                    f"{entry['processor_ratio']:.2f}x the processor time, "
                    f"{entry['peak_memory'] >> 20} MiB at most"
                )
            elif isinstance(entry, dict):
                line = f"  {mode:15} {entry['ratio']:5.2f}x"
                if "events" in entry:
                    line += f" {entry['events']:>12,} events, {entry['memory_added'] >> 20} MiB"
                print(line)
            elif entry is None:
                print(f"  {mode:15} not shipped by this distribution")


if __name__ == "__main__":
    main()
