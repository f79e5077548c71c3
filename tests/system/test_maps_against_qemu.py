"""`walk`, `maps` and `find` against QEMU's own answers, on booted guests and their dumps."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import guest
from cosim import cli
from cosim.capture import marks
from cosim.debugger.registers import RegisterNumbers, parse_value, read_description
from cosim.debugger.rsp import Stub
from cosim.kernel import symbols
from cosim.machine import tools
from cosim.machine.configuration import RAM_BASE, MachineConfig, Timing
from cosim.machine.qemu import Machine
from cosim.paging.explain import explain
from cosim.paging.find import find
from cosim.paging.maps import Range, maps
from cosim.paging.physical import RamWords
from cosim.paging.scan import scan
from cosim.paging.sources.dumps import linux_satp, open_core
from cosim.paging.space import Registers, Space

pytestmark = pytest.mark.system

SAMPLES = 150
Row = tuple[int, int, int, str]
"""A line of `info mem`: virtual address, physical address, size, attributes."""


@dataclass
class Stopped:
    """A guest that stands still with paging on."""

    machine: Machine
    stub: Stub
    numbers: RegisterNumbers

    def register(self, name: str) -> int:
        return parse_value(self.stub.request(self.numbers.read(name)))

    def monitor(self, *commands: str) -> list[str]:
        self.stub.post(*(self.stub.monitor(command) for command in commands))
        return [self.stub.monitor_answer() for _ in commands]

    def memory(self) -> RamWords:
        return RamWords(self.machine.ram_words(), RAM_BASE)

    def space(self) -> Space:
        mode = {0: "U", 1: "S"}[self.register("priv")]
        return Registers(
            satp=self.register("satp"),
            mstatus=self.register("mstatus"),
            menvcfg=self.register("menvcfg"),
            mode=mode,
        ).space()

    def info_mem(self) -> list[Row]:
        rows: list[Row] = []
        for line in self.monitor("info mem")[0].splitlines()[2:]:
            va, pa, size, attributes = line.split()
            rows.append((int(va, 16), int(pa, 16), int(size, 16), attributes))
        return merged(rows)


def merged(rows: list[Row]) -> list[Row]:
    """Join neighbours; QEMU keeps some apart, and we keep page sizes apart."""
    out: list[Row] = []
    for va, pa, size, attributes in rows:
        if out:
            before = out[-1]
            ends = (before[0] + before[2], before[1] + before[2], before[3])
            if ends == (va, pa, attributes):
                out[-1] = (before[0], before[1], before[2] + size, attributes)
                continue
        out.append((va, pa, size, attributes))
    return out


def as_info_mem(ranges: list[Range]) -> list[Row]:
    rows: list[Row] = []
    for one in ranges:
        assert one.pa is not None
        attributes = "".join(
            letter if one.perm >> bit & 1 else "-" for bit, letter in enumerate("rwxugad", start=1)
        )
        rows.append((one.va, one.pa, one.size, attributes))
    return merged(rows)


def connect(machine: Machine) -> Stopped:
    stub = Stub(machine.stub)
    stub.start()
    return Stopped(machine, stub, read_description(stub))


def machine_of(name: str, folder: Path, append: str) -> Machine:
    spec = guest.ensure(name, lambda *_: None)
    emulator = tools.qemu()
    config = MachineConfig(
        kernel=spec.kernel,
        initrd=spec.initrd,
        append=f"{spec.append} {append}",
        bios=spec.bios,
        memory=256 << 20,
        cpu=tools.default_cpu(emulator),
    )
    return Machine(emulator.path, config, folder=folder, timing=Timing("live"), stub=True)


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    """Linux at its shell's prompt."""
    with machine_of("linux", tmp_path_factory.mktemp("linux"), "cosim.shell") as machine:
        stopped = connect(machine)
        stopped.stub.resume(b"vCont;c")
        machine.console.expect("guest# ", 240)
        stopped.stub.interrupt()
        assert stopped.stub.stop(60) is not None
        while stopped.register("priv") == 3:
            # The firmware's own mode has no address space.
            stopped.stub.resume(b"vCont;s")
            assert stopped.stub.stop(60) is not None
        yield stopped


@contextmanager
def micro(folder: Path, mode: str) -> Iterator[Stopped]:
    """Stop micro where it has made tables of every sort."""
    append = f"mode={mode} scenario=alias,superpage,user,asid,global"
    with machine_of("micro", folder, append) as machine:
        stopped = connect(machine)
        spec = guest.ensure("micro", lambda *_: None)
        address = symbols.load(spec.kernel).address(marks.SYMBOL)
        stopped.stub.command(b"Z0,%x,4" % address)
        for _ in range(5):
            stopped.stub.resume(b"vCont;c")
            reply = stopped.stub.stop(60)
            assert reply is not None and not reply.ended
            stopped.stub.resume(b"vCont;s")
            assert stopped.stub.stop(60) is not None
        yield stopped


def check_maps(stopped: Stopped, space: Space) -> None:
    """Compare the ranges with `info mem`, walks and their reverse with `gva2gpa`."""
    memory = stopped.memory()
    answer = scan(memory, space)
    assert answer.cut is None
    ranges = maps(answer)
    expected = stopped.info_mem()
    assert as_info_mem(ranges) == expected
    assert len(expected) > 3
    rng = random.Random(1)
    # Inside of what is mapped, at its ends, and around them.
    chosen = rng.sample(ranges, min(len(ranges), SAMPLES // 3))
    vas = [one.va + rng.randrange(one.size) for one in chosen]
    vas += [(one.va - 8) % (1 << 64) for one in chosen] + [one.last & ~7 for one in chosen]
    answers = stopped.monitor(*(f"gva2gpa {va:#x}" for va in vas))
    mapped = 0
    for va, said in zip(vas, answers, strict=True):
        ours = explain(memory, space, va)
        assert said.strip() == ("Unmapped" if ours.pa is None else f"gpa: {ours.pa:#x}"), hex(va)
        if ours.pa is not None:
            mapped += 1
            places = {place.va for place in find(answer, ours.pa)}
            assert va in places
    assert mapped > 3


def test_linux_is_mapped_as_qemu_says(linux: Stopped) -> None:
    space = linux.space()
    assert space.name == "Sv39"
    check_maps(linux, space)


@pytest.mark.parametrize("mode", ["sv39", "sv48", "sv57"])
def test_micro_is_mapped_as_qemu_says(mode: str, tmp_path: Path) -> None:
    with micro(tmp_path, mode) as stopped:
        space = stopped.space()
        assert space.name == mode.capitalize()
        check_maps(stopped, space)
        dump = tmp_path / "core"
        stopped.machine.qmp("dump-guest-memory", paging=False, protocol=f"file:{dump}")
        assert maps(scan(open_core(dump), space)) == maps(scan(stopped.memory(), space))


def test_find_gives_every_address_of_a_frame(linux: Stopped) -> None:
    """Every mapping that `info mem` has of a frame, and no other."""
    answer, rows = scan(linux.memory(), linux.space()), linux.info_mem()
    rng = random.Random(2)
    several = 0
    for row in rng.sample(rows, min(len(rows), 60)):
        pa = row[1] + rng.randrange(row[2])
        expected = sorted(
            va + (pa - start) for va, start, size, _ in rows if 0 <= pa - start < size
        )
        assert [place.va for place in find(answer, pa)] == expected
        several += len(expected) > 1
    # The kernel's map of all memory has user pages, too.
    assert several > 5


@pytest.mark.parametrize("form", ["elf", "kdump-zlib", "kdump-raw-zlib"])
def test_dumps_of_linux_say_what_its_ram_says(
    linux: Stopped, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = linux.space()
    dump = tmp_path / "core"
    linux.machine.qmp("dump-guest-memory", paging=False, protocol=f"file:{dump}", format=form)
    assert maps(scan(open_core(dump), space)) == maps(scan(linux.memory(), space))
    words = ["--core", str(dump), "--satp", hex(space.satp or 0), "--json"]
    ranges = maps(scan(linux.memory(), space))
    for command in (["maps"], ["walk", hex(ranges[-1].va)], ["find", hex(ranges[-1].pa or 0)]):
        with pytest.raises(SystemExit) as ended:
            cli.main([command[0], *words, *command[1:]])
        assert ended.value.code == 0
        document = json.loads(capsys.readouterr().out)
        if command[0] == "maps":
            assert len(document["ranges"]) == len(ranges)
        elif command[0] == "walk":
            assert document[0]["pa"] == ranges[-1].pa
        else:
            assert ranges[-1].va in [place["va"] for place in document[0]["places"]]


def test_the_kernels_own_root_is_found_in_a_dump(linux: Stopped) -> None:
    """Linux copies its own half of the address space into the root of every process."""
    satp = linux_satp(linux.memory())
    assert satp is not None

    def kernel_half(value: int) -> list[Range]:
        return [one for one in maps(scan(linux.memory(), Space(satp=value))) if one.va >> 63]

    assert kernel_half(satp) == kernel_half(linux.register("satp"))
    assert satp != linux.register("satp")


def test_maps_takes_less_than_a_third_of_a_second(linux: Stopped) -> None:
    memory, space = linux.memory(), linux.space()
    tables = np.unique(scan(memory, space).tables["pa"])

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    reading = best(lambda: memory.tables(tables))
    mapping = best(lambda: maps(scan(memory, space)))
    print(
        f"{len(tables)} tables: maps {1000 * mapping:.1f} ms, reading the tables once "
        f"{1000 * reading:.2f} ms, ratio {mapping / reading:.0f}"
    )
    assert mapping < 0.3
