"""GdbMi against the real gdb and a real QEMU running a small S-mode loop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cosim.debugger.mi_records import GdbStop
from cosim.errors import GdbError, MissingTool, StorageError
from cosim.kernel.images import inspect_kernel
from cosim.machine import tools
from cosim.machine.configuration import RAM_BASE, MachineConfig, Timing
from cosim.machine.qemu import Machine
from tests.system.inspecting_gdb import InspectingGdb

pytestmark = pytest.mark.system

_LOOP = """
.option norvc
.option norelax
.globl _start, again, last, datum
_start: la   s0, datum
        li   a0, 0
again:  addi a0, a0, 1
        sd   a0, 0(s0)
last:   j    again
        .balign 8
datum:  .quad 0
"""
_POWER_OFF = """
.option norvc
.globl _start
_start: li a7, 0x53525354
        li a6, 0
        li a0, 0
        li a1, 0
        ecall
halt:   j halt
"""


def _build(folder: Path, source: str) -> Path:
    """An S-mode kernel for QEMU's OpenSBI."""
    (folder / "k.s").write_text(source)
    output = folder / "k.elf"
    options = ["-nostdlib", "-static", "-Wl,-N,--build-id=none,-Ttext=0x80200000"]
    compiler = tools.cross_compiler().path
    subprocess.run([compiler, *options, folder / "k.s", "-o", output], check=True, timeout=60)
    return output


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(tmp_path_factory.mktemp("loop"), _LOOP)


def _serve(stub: socket.socket, path: Path) -> socket.socket:
    """Pass bytes between the one client of a Unix socket at ``path`` and QEMU's stub."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                # A dead QEMU is no reason not to take what gdb still sends.
                with suppress(BrokenPipeError, ConnectionResetError):
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=pump, args=(stub, client), daemon=True).start()
        pump(client, stub)

    threading.Thread(target=serve, daemon=True).start()
    return listener


@contextmanager
def session(kernel: Path, folder: Path) -> Iterator[tuple[Machine, InspectingGdb]]:
    """A stopped guest with gdb attached."""
    config = MachineConfig(kernel=kernel, memory=128 << 20)
    timing = Timing("live")
    with Machine(tools.qemu().path, config, folder=folder, timing=timing, stub=True) as machine:
        path = folder / "gdb socket"
        with (
            _serve(machine.stub, path),
            InspectingGdb(tools.gdb().path, transcript=folder / "mi.log") as gdb,
        ):
            gdb.load_symbols(kernel)
            stop = gdb.connect(path)
            assert stop.pc == 0x1000  # QEMU's reset vector
            yield machine, gdb
    assert not _exists(gdb.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _stop(gdb: InspectingGdb) -> GdbStop:
    stop = gdb.wait_stop(20)
    assert stop is not None
    return stop


def _address(gdb: InspectingGdb, symbol: str) -> int:
    return int(gdb.evaluate(f"(unsigned long)&{symbol}").split()[0], 0)


def test_break_step_inspect_interrupt(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (machine, gdb):
        again, datum = _address(gdb, "again"), _address(gdb, "datum")
        number = gdb.break_insert(again)
        gdb.resume()
        stop = _stop(gdb)
        assert (stop.reason, stop.pc, stop.breakpoint) == ("breakpoint-hit", again, number)
        assert not gdb.running
        values = gdb.registers(["pc", "a0", "s0", "satp", "priv"])
        assert values == {"pc": again, "a0": 0, "s0": datum, "satp": 0, "priv": 1}

        stop = gdb.step_instruction()
        assert (stop.reason, stop.pc) == ("end-stepping-range", again + 4)
        assert gdb.registers(["a0"]) == {"a0": 1}
        gdb.step_instruction()
        word = machine.ram_words()[(datum - RAM_BASE) // 8]
        assert word == 1 == int.from_bytes(gdb.read_memory(datum, 8), "little")
        contents = loop.read_bytes()
        piece = inspect_kernel(loop).ranges[0]
        code = contents[piece.file_offset : piece.file_offset + piece.file_size]
        assert (
            gdb.read_memory(piece.start, piece.file_size)[: datum - piece.start]
            == (code[: datum - piece.start])
        )

        for count in range(2, 5):  # hit by hit: the loop counts exactly
            gdb.resume()
            assert _stop(gdb).breakpoint == number
            assert gdb.registers(["a0"]) == {"a0": count - 1}
        gdb.break_delete(number)
        gdb.resume()
        assert gdb.running
        assert gdb.wait_stop(0.1) is None
        gdb.interrupt()
        stop = _stop(gdb)
        assert (stop.reason, stop.signal) == ("signal-received", "SIGINT")
        assert stop.pc is not None
        assert again <= stop.pc <= _address(gdb, "last")
        assert gdb.registers(["a0"])["a0"] > 4
        assert "pc " in gdb.execute("info registers pc")
    log = (tmp_path / "mi.log").read_text()
    assert "-exec-interrupt" in log
    assert "*stopped" in log


def test_software_breakpoint(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (_, gdb):
        last = _address(gdb, "last")
        hardware = gdb.break_insert(last)
        gdb.resume()
        assert _stop(gdb).breakpoint == hardware
        again = _address(gdb, "again")
        software = gdb.break_insert(again, hardware=False)
        gdb.resume()
        stop = _stop(gdb)
        assert (stop.pc, stop.breakpoint) == (again, software)


def test_errors_name_the_command_and_leave_the_session_usable(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (_, gdb):
        with pytest.raises(GdbError, match=r"refuses -nonsense: Undefined MI command"):
            gdb.command("-nonsense")
        with pytest.raises(
            GdbError, match=r'refuses -data-evaluate-expression "nosuch": No symbol'
        ):
            gdb.evaluate("nosuch")
        with pytest.raises(GdbError, match="-data-read-memory-bytes 0xffffffffff000000 8"):
            gdb.read_memory(0xFFFF_FFFF_FF00_0000, 8)
        with pytest.raises(GdbError, match="no register xyzzy"):
            gdb.registers(["pc", "xyzzy"])
        with pytest.raises(GdbError, match="gdb has a guest already"):
            gdb.connect(tmp_path / "other")
        began = time.monotonic()
        slow = "python import time; time.sleep(2)"
        with pytest.raises(GdbError, match=r"did not answer .*time.sleep.* within 0.3 s"):
            gdb.execute(slow, timeout=0.3)
        assert time.monotonic() - began < 1.5
        # The late answer belongs to nobody; the next command gets its own.
        assert gdb.evaluate("6 * 7") == "42"
        assert gdb.evaluate('"a\\\\b"[1] == 92') == "1"


def test_calls_in_the_wrong_state_are_refused(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (_, gdb):
        with pytest.raises(GdbError, match="interrupt: the guest does not run"):
            gdb.interrupt()
        gdb.resume()
        calls: list[Callable[[], object]] = [
            gdb.resume,
            gdb.step_instruction,
            lambda: gdb.registers(["pc"]),
            lambda: gdb.read_memory(RAM_BASE, 8),
            lambda: gdb.break_insert(RAM_BASE),
            lambda: gdb.evaluate("$pc"),
        ]
        for call in calls:
            with pytest.raises(GdbError, match="the guest runs; interrupt it or wait"):
                call()
    for call in calls:
        with pytest.raises(GdbError, match=r"gdb (ended|was killed|is closed)"):
            call()


def _raises_soon(call: Callable[[], object], match: str) -> None:
    began = time.monotonic()
    with pytest.raises(GdbError, match=match):
        call()
    assert time.monotonic() - began < 5


def test_gdb_killed_while_waiting_for_a_stop(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (machine, gdb):
        gdb.resume()
        threading.Timer(0.3, os.kill, (gdb.pid, signal.SIGKILL)).start()
        _raises_soon(lambda: gdb.wait_stop(60), "gdb was killed by signal 9")
        _raises_soon(lambda: gdb.wait_stop(60), "gdb was killed by signal 9")
        _raises_soon(lambda: gdb.registers(["pc"]), "gdb was killed by signal 9")
        _raises_soon(lambda: gdb.command("-gdb-version"), "gdb was killed by signal 9")
        assert machine.alive()


def test_gdb_killed_with_commands_under_way(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (_, gdb):
        caught: list[GdbError] = []

        def wait(line: str) -> None:
            try:
                gdb.execute(line, timeout=60)
            except GdbError as error:
                caught.append(error)

        lines = ["python import time; time.sleep(50)", "print 1", "print 2"]
        threads = [threading.Thread(target=wait, args=(line,)) for line in lines]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        os.kill(gdb.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(5)
        assert len(caught) == 3
        assert all("killed by signal 9" in str(error) for error in caught)
        assert any("time.sleep" in str(error) for error in caught)


def test_qemu_killed_while_waiting_for_a_stop(loop: Path, tmp_path: Path) -> None:
    with session(loop, tmp_path) as (machine, gdb):
        gdb.resume()
        threading.Timer(0.3, os.kill, (machine.pid, signal.SIGKILL)).start()
        _raises_soon(lambda: gdb.wait_stop(60), "gdb has lost its guest.*Remote connection closed")
        _raises_soon(lambda: gdb.registers(["pc"]), "gdb has no guest")


def test_the_guest_powers_off(tmp_path: Path) -> None:
    with session(_build(tmp_path, _POWER_OFF), tmp_path) as (_, gdb):
        gdb.resume()
        stop = _stop(gdb)
        assert stop.ended
        assert stop.pc is None
        with pytest.raises(GdbError, match="gdb has no guest"):
            gdb.resume()


@pytest.mark.parametrize("name", [b"bad\xff.elf", b"new\nline.elf", b"-dash.elf", b"\"'\\ .elf"])
def test_symbols_of_a_file_of_any_name(
    name: bytes, loop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elf = Path(os.fsdecode(name))
    shutil.copy(loop, elf)
    with InspectingGdb(tools.gdb().path) as gdb:
        gdb.load_symbols(elf)
        assert "datum" in gdb.execute("info address datum")
        with pytest.raises(GdbError, match='No symbol "nothing"'):
            gdb.execute("info address nothing")


def test_a_gdb_without_riscv() -> None:
    plain = shutil.which("gdb")
    assert plain is not None
    with pytest.raises(MissingTool, match=r"gdb does not know RISC-V; install gdb-multiarch"):
        InspectingGdb(plain)


def test_no_gdb_at_all_and_something_else(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match="No such file"):
        InspectingGdb(tmp_path / "gdb")
    _raises_soon(lambda: InspectingGdb("/bin/false"), "gdb ended with status 1")


def test_nobody_serves_the_socket(tmp_path: Path) -> None:
    with InspectingGdb(tools.gdb().path) as gdb:
        with pytest.raises(GdbError, match="No such file or directory"):
            gdb.connect(tmp_path / "nothing")
        with pytest.raises(GdbError, match="gdb has no guest; connect first"):
            gdb.resume()


def test_a_full_disk_costs_the_transcript_only() -> None:
    with InspectingGdb(tools.gdb().path, transcript=Path("/dev/full")) as gdb:
        assert gdb.execute("print 6 * 7").endswith("42\n")
        with pytest.raises(StorageError, match=r"transcript is incomplete .*No space left"):
            gdb.check_log()
    with pytest.raises(StorageError, match=r"cannot write /nonexistent/mi.log"):
        InspectingGdb(tools.gdb().path, transcript=Path("/nonexistent/mi.log"))


def test_gdb_dies_with_us() -> None:
    program = (
        "from cosim.debugger.mi import GdbMi; from cosim.machine import tools; import time\n"
        "print(GdbMi(tools.gdb().path).pid, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        pid = int(child.stdout.readline())
        assert _exists(pid)
        child.kill()
        child.wait(5)
        deadline = time.monotonic() + 5
        while _exists(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _exists(pid)
    finally:
        child.kill()
        child.wait(5)
        child.stdout.close()
