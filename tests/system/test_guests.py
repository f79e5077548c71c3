"""The guests boot for real, do what they say, set their marks, and power off by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

import guest
from cosim.capture import marks
from cosim.debugger.registers import parse_general, read_description
from cosim.debugger.rsp import Stub
from cosim.kernel import symbols
from cosim.machine import tools
from cosim.machine.configuration import MachineConfig, Timing, parse_memory
from cosim.machine.qemu import Machine
from guest import GuestSpec

pytestmark = pytest.mark.system

SCENARIOS = {
    *("map", "protect", "bulk", "alias", "superpage", "unlink", "asid", "global", "bare"),
    *("stores", "cbo-zero", "misaligned", "svinval", "fault", "user", "forgotten"),
}


def _ready(name: str) -> GuestSpec:
    return guest.ensure(name, lambda *_: None)


def _machine(
    spec: GuestSpec, folder: Path, append: str, *, stub: bool = False, cpu: str = ""
) -> Machine:
    emulator = tools.qemu()
    config = MachineConfig(
        kernel=spec.kernel,
        initrd=spec.initrd,
        append=append,
        bios=spec.bios,
        memory=parse_memory(spec.memory),
        cpu=tools.default_cpu(emulator) + cpu,
    )
    return Machine(emulator.path, config, folder=folder, timing=Timing("live"), stub=stub)


def _boot(spec: GuestSpec, folder: Path, append: str, cpu: str = "") -> list[str]:
    """Run the guest to its own end; the lines of its console."""
    with _machine(spec, folder, append, cpu=cpu) as machine:
        machine.resume()
        assert machine.wait(50), machine.console_log.read_text(errors="replace")[-2000:]
        assert machine.end_reason() == "guest-shutdown"
        text = machine.console_log.read_text(errors="replace")
    return [line.rstrip("\r") for line in text.split("\n")]


def _marks(spec: GuestSpec, folder: Path, append: str, address: int) -> list[str]:
    """Run the guest; the labels that it sets, in order."""
    labels: list[str] = []
    with _machine(spec, folder, append, stub=True) as machine:
        stub = Stub(machine.stub)
        stub.start()
        read_description(stub)
        stub.command(b"Z0,%x,4" % address)
        for _ in range(100):
            stub.resume(b"vCont;c")
            reply = stub.stop(50)
            assert reply is not None, machine.console.last_line()
            if reply.ended:
                return labels
            registers = parse_general(stub.request(b"g"))
            assert registers[32] == address
            stub.resume(b"vCont;s")
            assert stub.stop(50) is not None
            # An interrupt may come first; then the guest is back at the mark later.
            if 0 < parse_general(stub.request(b"g"))[32] - address <= 4:
                labels.append(marks.label(registers))
    raise AssertionError(f"too many marks: {labels}")


@pytest.mark.parametrize("name", ["micro", "micro-m"])
def test_every_scenario_of_micro_passes(name: str, tmp_path: Path) -> None:
    lines = _boot(_ready(name), tmp_path, "scenario=all", cpu=",svinval=on")
    passed = {line.split()[1] for line in lines if line.startswith("micro: ") and " ok, " in line}
    assert passed == SCENARIOS
    assert f"micro: done, {len(SCENARIOS)} scenarios, 0 failures" in lines
    if tools.qemu_has_cpu_option(tools.qemu().path, "zicboz=on"):
        assert not any("this hart has no" in line for line in lines)


@pytest.mark.parametrize("mode", ["sv48", "sv57"])
def test_deeper_modes_and_no_asids(mode: str, tmp_path: Path) -> None:
    lines = _boot(_ready("micro-m"), tmp_path, f"scenario=all mode={mode} asids=0")
    assert f"micro: mode {mode}, scenario all" in lines
    assert f"micro: done, {len(SCENARIOS)} scenarios, 0 failures" in lines


@pytest.mark.parametrize(("share", "modified"), [(0, 0), (33, 3300), (100, 10000)])
def test_the_benchmark_modifies_exactly_its_share(
    share: int, modified: int, tmp_path: Path
) -> None:
    options = f"scenario=lsp-bench pages=700 ops=10000 share={share} seed=3"
    lines = _boot(_ready("micro-m"), tmp_path, options)
    counts = f"{modified} modifications, {10000 - modified} loads"
    assert f"micro: lsp-bench 700 pages, {counts}" in lines
    assert "micro: done, 1 scenarios, 0 failures" in lines


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("scenario=nothing", "micro: unknown scenario nothing; the scenarios are map "),
        ("scenario=lsp-bench ops=1e5", "micro: ops is not a number: 1e5"),
        ("scenario=lsp-bench pages=5000", "micro: lsp-bench takes 1 to 4096 pages"),
        ("mode=sv32", "micro: unknown mode sv32"),
    ],
)
def test_micro_says_what_it_does_not_take(options: str, line: str, tmp_path: Path) -> None:
    assert any(said.startswith(line) for said in _boot(_ready("micro-m"), tmp_path, options))


def test_a_hardware_update_shows_where_svade_is_off(tmp_path: Path) -> None:
    spec = _ready("micro-m")
    if tools.qemu_has_cpu_option(tools.qemu().path, "svade=on"):
        said = "micro: fault: accessed and dirty bits are set by "
        assert said + "software" in _boot(spec, tmp_path, "scenario=fault")
        assert said + "hardware" in _boot(
            spec, tmp_path, "scenario=fault", cpu=",svade=off,svadu=on"
        )


def test_the_marks_of_micro(tmp_path: Path) -> None:
    spec = _ready("micro")
    address = symbols.load(spec.kernel).address(marks.SYMBOL)
    labels = _marks(spec, tmp_path, "scenario=asid,map", address)
    assert labels == ["begin", "map", "asid", "end"]


def test_linux_runs_its_workload_and_powers_off(tmp_path: Path) -> None:
    spec = _ready("linux")
    lines = _boot(spec, tmp_path, spec.append)
    steps = [line.split()[1] for line in lines if line.startswith("paging-workload: ")]
    assert steps == [
        *("mapped", "protected", "forked", "advised", "moved", "unmapped", "huge", "executed"),
        "failures",
    ]
    assert "paging-workload: failures 0" in lines
    assert "cosim: done, exit status 0" in lines
    assert any("reboot: Power down" in line for line in lines)


def test_linux_runs_a_command_and_sets_its_marks(tmp_path: Path) -> None:
    spec = _ready("linux")
    command = "cosim-mark alpha && cosim-mark 0123456789abcdef0123456789abcdef; exit 3"
    labels = _marks(spec, tmp_path, f'{spec.append} quiet cosim.run="{command}"', marks.USER_MARK)
    assert labels == ["init", "alpha", "0123456789abcdef" * 2, "done"]
    console = next(tmp_path.glob("*.console.log")).read_text(errors="replace")
    assert "cosim: done, exit status 3" in console


def test_linux_gives_a_shell(tmp_path: Path) -> None:
    spec = _ready("linux")
    with _machine(spec, tmp_path, f"{spec.append} quiet cosim.shell") as machine:
        machine.resume()
        machine.console.expect("guest# ", 40)
        machine.console.send("echo $((6 * 7)) $(cat /proc/1/comm); cosim-mark; tty\n")
        machine.console.expect("42 init", 20)
        machine.console.expect("usage: cosim-mark LABEL", 20)
        machine.console.expect("/dev/ttyS0", 20)
        machine.console.send("exit\n")
        assert machine.wait(20)
        assert machine.end_reason() == "guest-shutdown"
