"""Bad input and faults of `cosim run`: one line, the right exit status, nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import guest
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing
from cosim.machine.console import Console
from cosim.machine.qemu import Machine
from cosim.run.plan import TOOL_BYTES
from cosim.trace import manifest
from cosim.trace.reader import TraceReader, verify
from guest import compiler
from tests.system.cosim_process import Command, Ended, Home, run

pytestmark = [pytest.mark.system, pytest.mark.long]

HERE = Path(__file__).resolve().parent
SHORT = "scenario=lsp-bench pages=16 ops=60 share=50"
LONG = "scenario=lsp-bench pages=64 ops=200000 share=50"
"""A region that takes minutes under gdb, and a second to record."""
MICRO = ("run", "micro", "--model", "native", "--json")
LINUX = ("run", "linux", "--model", "native", "--json")

FINDING, USAGE, ENVIRONMENT, INTERRUPTED = 1, 2, 3, 130


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home", "micro")


def _refused(ended: Ended, status: int, *words: str) -> None:
    """The command said why in one line, and gave no result."""
    assert ended.status == status, ended
    for word in words:
        assert word in ended.line
    assert ended.stdout == ""


def _logs(ended: Ended, home: Home) -> Path:
    """The folder of logs that the message names: the only thing left."""
    (folder,) = home.sessions()
    assert str(folder) in ended.line
    assert list(folder.iterdir())
    assert home.leftovers() == []
    return folder


def _partial(ended: Ended, because: str) -> dict[str, int]:
    """The result so far was printed, as one that is not complete; its events."""
    document = ended.document
    assert document["complete"] is False
    assert because in document["incomplete_because"]
    assert document["audit"]["missed_writes"] == 0
    assert document["policies"]["native"] is not None
    events: dict[str, int] = document["events"]
    return events


# -- what the user gives --------------------------------------------------------------------------


def _linux_with_half_an_initrd(folder: Path) -> list[str | Path]:
    linux = guest.ensure("linux", lambda *_: None)
    assert linux.initrd is not None
    whole = linux.initrd.read_bytes()
    initrd = folder / "half.cpio.gz"
    initrd.write_bytes(whole[: len(whole) // 2])
    return ["--kernel", linux.kernel, "--initrd", initrd]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kernel", "/nowhere/vmlinux"], ("--kernel names /nowhere/vmlinux", "not a file")),
        (["--kernel", sys.executable], ("is built for", "not for RISC-V", "give a RISC-V")),
        (["nothing"], ("nothing", "micro")),
        (["micro", "--from", "no_such_symbol"], ("no_such_symbol",)),
        (["micro", "--from", "power-off"], ("--from cannot be power-off; only --to can",)),
        (["micro", "--model", "nonsense"], ("nonsense", "native")),
        (["micro", "--model", "shadow:roots=x"], ("roots", "'x'")),
        (["micro", "--cpu", "nonsense"], ("QEMU refuses -cpu nonsense: ",)),
        (["micro", "--memory", "1K"], ("0x400", "no number of 4 KiB pages")),
        ([], ("GUEST is missing; name a guest",)),
    ],
)
def test_a_request_that_cannot_be_done_starts_nothing(
    words: list[str], said: tuple[str, ...], home: Home
) -> None:
    _refused(run(["run", *words], home.environment()), USAGE, *said)
    assert home.sessions() == []
    assert home.leftovers() == []


@pytest.mark.parametrize("backend", ["gdb", "plugin"])
def test_a_workload_that_fails_is_told_of(backend: str, home: Home) -> None:
    words = [*LINUX, "--backend", backend, "--workload", "cosim-mark a; nosuchprogram"]
    ended = run([*words, "--from", "mark:a"], home.environment())
    assert ended.status == 0
    assert ended.document["complete"] is True
    assert ended.line.startswith("the workload ended with exit status 127 (console: ")
    console = Path(ended.line.rpartition("console: ")[2].removesuffix(")"))
    assert console.is_relative_to(_logs(ended, home))
    assert "nosuchprogram: not found" in console.read_text()


def test_a_truncated_initrd(home: Home) -> None:
    words = _linux_with_half_an_initrd(home.folder)
    _refused(run(["run", *words], home.environment()), USAGE, "truncated", "half.cpio.gz")
    assert home.sessions() == []


def test_more_memory_than_there_is(home: Home) -> None:
    with Command([*MICRO, "--memory", "900G"], home.environment()) as command:
        # RAM that is never touched takes no memory, so a limit stands in for a small machine.
        resource.prlimit(command.process.pid, resource.RLIMIT_AS, (64 << 30, 64 << 30))
        ended = command.end()
    _refused(ended, ENVIRONMENT, "not enough memory", "921600 MiB", "--memory")
    assert home.leftovers() == []


def test_much_memory_for_all_default_models(home: Home) -> None:
    """RAM that is not touched takes no memory, neither the guest's nor the models'."""
    words = ["run", "micro", "--backend", "plugin", "--memory", "4G", "--json"]
    ended = run(words, home.environment())
    assert ended.status == 0, ended.stderr
    assert len(ended.document["policies"]) == 4
    assert ended.document["guest"]["needs"]["memory"] == (4 << 30) + TOOL_BYTES


# -- the tools ------------------------------------------------------------------------------------


def _fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def _found(name: str) -> str:
    for folder in os.environ["PATH"].split(":"):
        if (Path(folder) / name).exists():
            return str(Path(folder) / name)
    raise AssertionError(f"{name} is not installed")


def test_no_qemu(home: Home) -> None:
    _fake(home.folder / "bin", "nothing", "exit 1")
    environment = {**home.environment(), "PATH": str(home.folder / "bin")}
    _refused(run(MICRO, environment), ENVIRONMENT, "not on PATH", "scripts/setup")
    assert home.sessions() == []


def test_a_qemu_that_is_too_old(home: Home) -> None:
    _fake(home.folder / "bin", "qemu-system-riscv64", "echo QEMU emulator version 6.0.0")
    environment = {**home.environment(), "PATH": str(home.folder / "bin")}
    _refused(run(MICRO, environment), ENVIRONMENT, "6.0.0", "too old", "7.2", "scripts/setup")
    assert home.sessions() == []


@pytest.mark.parametrize("there", [True, False])
def test_no_gdb_for_riscv(there: bool, home: Home) -> None:
    tools = home.folder / "bin"
    tools.mkdir()
    (tools / "qemu-system-riscv64").symlink_to(_found("qemu-system-riscv64"))
    compiler = Path(_found("cc"))
    # The real compiler wants its own tools on PATH.
    _fake(tools, "cc", f'PATH="{compiler.parent}" exec {compiler} "$@"')
    if there:
        _fake(tools, "gdb-multiarch", """echo 'Undefined item: "riscv:rv64".' >&2; exit 1""")
    environment = {**home.environment(), "PATH": str(tools)}
    said = "does not know RISC-V" if there else "not on PATH"
    _refused(run(MICRO, environment), ENVIRONMENT, "gdb-multiarch", said, "scripts/setup")
    assert home.sessions() == []


# -- the guest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", ["mark:never", "console:never said"])
def test_the_guest_powers_off_before_the_region(edge: str, home: Home) -> None:
    words = [*MICRO, "--workload", SHORT, "--from", edge]
    ended = run(words, home.environment())
    _refused(ended, ENVIRONMENT, "powered off before the region began", edge, "micro: done")
    console = _logs(ended, home) / "record.console.log"
    assert "micro: done" in console.read_text()


def test_the_guest_powers_off_in_the_region(home: Home) -> None:
    ended = run([*MICRO, "--workload", SHORT, "--to", "mark:never"], home.environment())
    assert ended.status == ENVIRONMENT
    assert "powered off before the region's end (--to mark:never)" in ended.line
    assert _partial(ended, "powered off")["pte_write"] == 30
    _logs(ended, home)


def test_a_line_too_shortly_before_the_end(home: Home) -> None:
    edges = ("--from", "console:micro: done", "--to", "power-off")
    ended = run([*MICRO, "--workload", SHORT, *edges], home.environment())
    if ended.status == 0:
        # It was noticed in time: then there is a region, if a short one.
        assert ended.document["region"]["instructions"] > 0
    else:
        _refused(ended, ENVIRONMENT, "before the region began", "use a mark")


def test_a_reset_is_no_panic(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "linux")
    ended = run([*LINUX, "--workload", "reboot -f"], home.environment())
    assert ended.status == 0, ended.stderr
    assert ended.document["complete"] is True


def test_a_panic_before_the_region(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "linux")
    ended = run([*LINUX, "--append", "rdinit=/nonexistent"], home.environment())
    _refused(ended, ENVIRONMENT, "the guest panicked (Kernel panic", "before the region began")
    assert "Unable to mount root fs" in ended.line
    _logs(ended, home)


def test_a_panic_in_the_region(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", "linux")
    crash = "cosim-mark a; echo c > /proc/sysrq-trigger"
    words = [*LINUX, "--workload", crash, "--from", "mark:a"]
    ended = run(words, home.environment())
    assert ended.status == ENVIRONMENT
    assert "the guest panicked: Kernel panic - not syncing: sysrq triggered crash" in ended.line
    assert _partial(ended, "sysrq triggered crash")["fence"] is not None
    _logs(ended, home)


def _bare(folder: Path, lines: int, *extra: str) -> list[str | Path]:
    """The words that run ``flood.S``."""
    kernel = folder / "flood.elf"
    flags = " ".join([f"-DLINES={lines} -Wl,-N", *extra])
    compiler.build(kernel, [HERE / "flood.S"], HERE / "mmu_probe.ld", extra=flags)
    options = ("--bios", "none", "--memory", "64M", "--model", "native", "--json")
    return ["run", "--kernel", kernel, *options]


def test_a_region_that_is_never_reached(home: Home) -> None:
    words = _bare(home.folder, 1, "-DSPIN")
    ended = run([*words, "--from", "mark:never", "--time-limit", "6"], home.environment())
    # How much of the limit the recording takes, and so which limit is hit, is the machine's.
    _refused(ended, ENVIRONMENT, "--from mark:never", "--time-limit", "its last line was 'THE-END'")
    _logs(ended, home)


def test_a_transcript_that_cannot_be_written(home: Home) -> None:
    log = home.folder / "nowhere" / "mi.log"
    ended = run([*MICRO, "--workload", SHORT, "--mi-log", log], home.environment())
    _refused(ended, ENVIRONMENT, f"cannot write {log}: No such file or directory")
    assert home.sessions() == [], "nothing was recorded"


def test_a_region_that_does_not_end_in_time(home: Home) -> None:
    words = [*MICRO, "--workload", LONG, "--time-limit", "9"]
    ended = run(words, home.environment())
    assert ended.status == ENVIRONMENT
    assert "9 s passed and --to mark:end was not reached; the guest is at " in ended.line
    assert "raise --time-limit" in ended.line
    assert _partial(ended, "9 s passed")["pte_write"] > 0
    _logs(ended, home)


@pytest.mark.parametrize("typed", [False, True])
def test_a_recording_whose_console_is_read_late(
    typed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Path(_bare(tmp_path, 2_000)[2])
    drain = Console._drain

    def late(console: Console) -> None:
        time.sleep(1.5)
        drain(console)

    monkeypatch.setattr(Console, "_drain", late)
    _record(kernel, tmp_path, Timing("record", tmp_path / "log", typed=typed))
    assert (tmp_path / "guest.console.log").stat().st_size == 2_000 * 64 + len("THE-END\n")


def test_recordings_of_a_guest_that_spins_once_it_is_off(tmp_path: Path) -> None:
    kernel = Path(_bare(tmp_path, 1)[2])
    for _ in range(8):
        # Whether the guest spins for long is a race inside QEMU.
        seconds = _record(kernel, tmp_path, Timing("record", tmp_path / "log"), limit=100)
        assert seconds < 100


def test_a_recording_of_a_guest_that_spins_for_ever(tmp_path: Path) -> None:
    kernel = Path(_bare(tmp_path, 1, "-DSPIN")[2])
    # 2^31 instructions, which QEMU cannot record without an event between, take 5 to 10 s.
    seconds = _record(kernel, tmp_path, Timing("record", tmp_path / "log"), limit=15)
    # QEMU has heard that it is to end: Machine.quit did not fail.
    assert seconds >= 15


def _record(kernel: Path, folder: Path, timing: Timing, limit: float = 20) -> float:
    """Record until the guest ends, at most ``limit`` seconds; the seconds until it was complete."""
    config = MachineConfig(kernel=kernel, bios="none", memory=64 << 20)
    started = time.monotonic()
    with Machine(tools.qemu().path, config, folder=folder, timing=timing, hold=True) as machine:
        machine.resume()
        machine.wait(limit)
        machine.quit()
    return time.monotonic() - started


def test_a_console_flood(home: Home) -> None:
    lines = 6_000
    logs = home.folder / "logs"
    words = [*_bare(home.folder, lines), "--from", "boot", "--to", "console:THE-END"]
    ended = run([*words, "--logs", logs], home.environment())
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.document["complete"] is True
    for name in ("record", "reexecution"):
        text = (logs / f"{name}.console.log").read_bytes()
        assert text == (b"y" * 63 + b"\n") * lines + b"THE-END\n"
    assert home.sessions() == []
    assert home.leftovers() == []


# -- processes that die ---------------------------------------------------------------------------


def _await_region(command: Command, mi_log: Path) -> None:
    """Wait until gdb has been told to go on inside the region, and events have come."""

    def inside() -> bool:
        return mi_log.exists() and mi_log.read_text().count("-exec-continue") >= 2

    command.until(inside, "the region")
    command.work(1.0)


def _long_run(home: Home) -> tuple[list[str | Path], Path]:
    mi_log = home.folder / "mi.log"
    return [*MICRO, "--workload", LONG, "--mi-log", mi_log], mi_log


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--interpreter=mi3",), "gdb was killed by signal 9"),
        (("rr=replay",), "QEMU was killed by signal 9"),
    ],
)
def test_a_part_is_killed_in_the_region(words: tuple[str, ...], said: str, home: Home) -> None:
    line, mi_log = _long_run(home)
    with Command(line, home.environment()) as command:
        _await_region(command, mi_log)
        os.kill(command.await_child(*words), signal.SIGKILL)
        ended = command.end(20)
    assert ended.status == ENVIRONMENT
    assert said in ended.line
    assert _partial(ended, said)["pte_write"] > 0
    _logs(ended, home)


def test_qemu_is_killed_while_it_records(home: Home) -> None:
    line = [*MICRO, "--workload", LONG.replace("200000", "16000000")]
    with Command(line, home.environment()) as command:
        os.kill(command.await_child("rr=record"), signal.SIGKILL)
        _refused(ended := command.end(20), ENVIRONMENT, "QEMU was killed by signal 9")
    _logs(ended, home)


@pytest.mark.parametrize("phase", ["recording", "region"])
def test_the_tool_is_killed(phase: str, home: Home) -> None:
    line, mi_log = _long_run(home)
    if phase == "recording":
        line[line.index(LONG)] = LONG.replace("200000", "16000000")
    with Command(line, home.environment()) as command:
        if phase == "recording":
            command.await_child("rr=record")
        else:
            _await_region(command, mi_log)
            assert len(command.living()) == 3
        command.send(signal.SIGKILL)
        command.process.wait(5)
        command.assert_gone()
    assert home.leftovers() == []


# -- interruptions --------------------------------------------------------------------------------


def _handles_signals(pid: int) -> bool:
    """Whether the tool has installed its handlers: Python itself leaves SIGTERM alone."""
    for line in Path(f"/proc/{pid}/status").read_text().split("\n"):
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.4])
def test_ctrl_c_while_it_starts(delay: float, home: Home) -> None:
    with Command(_long_run(home)[0], home.environment()) as command:
        command.until(lambda: _handles_signals(command.process.pid), "the handlers")
        time.sleep(delay)
        command.send(signal.SIGINT)
        _refused(command.end(20), INTERRUPTED, "interrupted")
    assert home.leftovers() == []


@pytest.mark.parametrize(
    ("backend", "word"),
    [
        ("gdb+plugin", "rr=record"),  # knows after the recording that the region never begins
        ("gdb", "rr=record"),
        ("gdb", "rr=replay"),
        ("gdb", "--interpreter=mi3"),
    ],
)
def test_ctrl_c_before_the_region(backend: str, word: str, home: Home) -> None:
    line = [*MICRO, "--workload", LONG, "--from", "mark:never", "--backend", backend]
    with Command(line, home.environment()) as command:
        command.await_child(word)
        command.send(signal.SIGINT)
        _refused(ended := command.end(20), INTERRUPTED, "interrupted")
    _logs(ended, home)


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1)]
)
def test_an_interruption_in_the_region(number: signal.Signals, times: int, home: Home) -> None:
    line, mi_log = _long_run(home)
    with Command(line, home.environment()) as command:
        _await_region(command, mi_log)
        for _ in range(times):
            command.send(number)
            time.sleep(0.1)
        ended = command.end(20)
    assert ended.status == INTERRUPTED, ended.stderr
    assert "interrupted" in ended.line
    events = _partial(ended, "interrupted")
    assert events["pte_write"] > 0
    assert ended.document["audit"]["checks"] > 1
    _logs(ended, home)


def test_ctrl_c_while_every_instruction_is_stepped(home: Home) -> None:
    line, mi_log = _long_run(home)
    with Command([*line, "--step-all"], home.environment()) as command:
        _await_region(command, mi_log)
        command.send(signal.SIGINT)
        ended = command.end(20)
    assert ended.status == INTERRUPTED, ended.stderr
    assert _partial(ended, "interrupted")["access"] > 0
    _logs(ended, home)


# -- disks ----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB; making one takes root."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("place", ["logs", "cache"])
def test_a_full_disk(place: str, filled: bool, small_disk: Path, home: Home) -> None:
    if filled:
        (small_disk / "ballast").write_bytes(bytes(64 << 10))
    environment = home.environment()
    words = [*MICRO, "--workload", LONG]
    if place == "logs":
        words += ["--logs", str(small_disk / "logs")]
    else:
        (small_disk / "guests").symlink_to((home.cache / "guests").resolve())
        environment["COSIM_CACHE"] = str(small_disk)
    ended = run(words, environment)
    _refused(ended, ENVIRONMENT, "free space", "No space left on device")
    assert home.leftovers() == []
    kept = [path for path in small_disk.rglob("*") if path.is_file() and path.suffix != ".log"]
    # The compiled plugin is for the next run.
    kept = [path for path in kept if not path.match("plugin/cosim-*.so")]
    assert kept == ([small_disk / "ballast"] if filled else [])


def test_an_mi_transcript_that_cannot_be_written(home: Home) -> None:
    words = [*MICRO, "--workload", SHORT, "--mi-log", "/dev/full"]
    ended = run(words, home.environment())
    assert ended.status == ENVIRONMENT
    assert "the MI transcript is incomplete" in ended.line
    assert _partial(ended, "MI transcript")["pte_write"] == 30


def test_a_result_that_cannot_be_written(home: Home) -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-c", "from cosim.cli import main; main()", *MICRO]
        ended = subprocess.run(
            [*words, "--workload", SHORT],
            env=home.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    assert ended.returncode == ENVIRONMENT
    assert ended.stderr.count("\n") == 1
    assert "No space left on device" in ended.stderr


# -- side by side ---------------------------------------------------------------------------------


def test_two_sessions_side_by_side(home: Home) -> None:
    words = [*MICRO, "--workload", SHORT]
    with (
        Command(words, home.environment()) as one,
        Command(words, home.environment()) as other,
    ):
        both = one.end(), other.end()
    for ended in both:
        assert ended.status == 0, ended.stderr
        assert ended.document["complete"] is True
        assert ended.document["audit"]["missed_writes"] == 0
    assert both[0].document["events"] == both[1].document["events"]
    assert home.sessions() == []
    assert home.leftovers() == []


# -- traces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "number", "status"),
    [((), signal.SIGINT, INTERRUPTED), (("rr=replay",), signal.SIGKILL, ENVIRONMENT)],
)
def test_a_trace_that_is_cut_short_is_kept(
    words: tuple[str, ...], number: signal.Signals, status: int, home: Home
) -> None:
    trace = home.folder / "trace"
    line = ["capture", "micro", "--backend", "gdb", "--workload", LONG, "-o", str(trace)]
    with Command(line, home.environment()) as command:
        command.until(lambda: (trace / manifest.NAME).exists(), "the trace")
        command.work(1.5)
        os.kill(command.await_child(*words) if words else command.process.pid, number)
        ended = command.end(20)
    assert ended.status == status, ended.stderr
    _logs(ended, home)
    # That it is not complete is all that is wrong with it.
    (problem,) = verify(trace)
    assert "the capture is incomplete" in problem
    kept = TraceReader(trace)
    assert kept.ending.complete is False
    assert sum(len(batch) for batch in kept.batches()) == kept.events > 0
