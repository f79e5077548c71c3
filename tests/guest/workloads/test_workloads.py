"""The workloads' sources and recipe, without a guest."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.capture import marks
from cosim.commands import guest as guest_command
from cosim.errors import EnvironmentFault, UsageError
from cosim.machine import tools
from guest import compiler, workloads
from guest.apt import Package
from guest.spec import GuestSpec
from guest.workloads import SIZES, WORKLOADS, catalog, generate, packages, recipe
from tests.guest import workload_reference as reference

INPUTS = catalog.inputs()

# -- our kernels, compiled for this machine -------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernels are compiled."""
    return tmp_path_factory.mktemp("native")


@settings(max_examples=60)
@given(
    nodes=st.integers(4, 30),
    arcs=st.integers(1, 150),
    units=st.integers(1, 8),
    seed=st.integers(0, 1 << 31),
)
def test_mcf_like_finds_the_minimum(
    folder: Path, nodes: int, arcs: int, units: int, seed: int
) -> None:
    flow, cost = reference.minimum_cost_flow(nodes, arcs, units, min(seed, (1 << 31) - 1))
    said = reference.native(folder, "mcf_like", nodes, arcs, units, min(seed, (1 << 31) - 1))
    assert said.startswith(f"flow {flow} cost {cost} checksum ")


@settings(max_examples=60)
@given(side=st.integers(2, 25), searches=st.integers(1, 6), seed=st.integers(0, (1 << 31) - 1))
def test_astar_like_finds_the_shortest_paths(
    folder: Path, side: int, searches: int, seed: int
) -> None:
    assert reference.native(folder, "astar_like", side, searches, seed) == reference.grid_paths(
        side, searches, seed
    )


@pytest.mark.parametrize(("side", "iterations", "seed"), [(2, 1, 3), (4, 1, 1), (4, 30, 7)])
def test_milc_like_solves_its_system(folder: Path, side: int, iterations: int, seed: int) -> None:
    words = reference.native(folder, "milc_like", side, iterations, seed).split()
    solution, residual = reference.lattice(side, iterations, seed)
    # Sums in another order: rounding grows with the iterations; the output has ten digits.
    assert float(words[1]) == pytest.approx(solution, rel=1e-9)
    assert float(words[3]) == pytest.approx(residual, rel=1e-8)


@pytest.mark.parametrize("program", ["mcf_like", "milc_like", "astar_like"])
@pytest.mark.parametrize("arguments", [["x"], ["4"], ["0", "0", "0", "0"], ["4x", "4", "4", "4"]])
def test_kernels_refuse_wrong_arguments(folder: Path, program: str, arguments: list[str]) -> None:
    with pytest.raises(AssertionError, match="usage:"):
        reference.native(folder, program, *arguments)


# -- generated input ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 4))
def test_generated_c_means_one_thing(tmp_path: Path, seed: int) -> None:
    """No warning, no undefined behaviour, one output at every optimization."""
    source = tmp_path / "generated.i"
    source.write_bytes(generate.c_source(functions=8, declarations=3, seed=seed))
    compile_ = [str(tools.host_compiler().path), "-Werror", "-Wall", "-fpreprocessed"]
    outputs = []
    for number, flags in enumerate((["-O0", "-fsanitize=undefined"], ["-O2"])):
        program = tmp_path / f"program{number}"
        words = [*compile_, "-Wno-unused", "-fno-sanitize-recover", *flags]
        subprocess.run([*words, str(source), "-o", str(program)], check=True)
        answer = subprocess.run([program], capture_output=True, timeout=60, check=True)
        outputs.append(answer.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 8


def test_generated_input_is_the_same_everywhere() -> None:
    """Digests taken once: another machine or Python release must make the same bytes."""
    digests = {name: hashlib.sha256(data).hexdigest()[:16] for name, data in INPUTS.items()}
    assert digests == {
        "test.i": "cdc3ed5986b21f7d",
        "full.i": "80ee9a94662ef068",
        "test.sql": "df3bd922956adfa4",
        "full.sql": "cfb435fd4bc30e41",
        "test.txt": "85ef219d15b5ed4c",
        "full.txt": "041d388569865c74",
    }


def test_cc1_gets_about_150_kilobytes() -> None:
    assert 140_000 < len(INPUTS["full.i"]) < 170_000


def test_text_packs_like_text() -> None:
    data = INPUTS["test.txt"]
    assert len(data) == 100_000
    assert 0.2 < len(lzma.compress(data)) / len(data) < 0.6


def test_sql_does_what_it_says() -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(generate.sql(1000).decode())
    left, removed = database.execute(
        "select count(*), sum(amount % 5 = 0) from purchase"
    ).fetchone()
    assert 700 < left < 900
    assert removed == 0
    indexes = database.execute("select count(*) from sqlite_master where type = 'index'")
    assert indexes.fetchone() == (2,)


# -- catalog and scripts --------------------------------------------------------------------------


def test_catalog_names_the_stand_ins() -> None:
    """The paper's programs: one real, three copied, and their names say which."""
    paper = {w.stands_for: w for w in WORKLOADS.values() if w.stands_for}
    for program in ("429.mcf", "433.milc", "473.astar"):
        assert paper[program].stand_in
        assert paper[program].name == program.partition(".")[2] + "-like"
        assert paper[program].memory["full"] >= 64
    assert not paper["403.gcc"].stand_in
    assert {"sqlite3", "redis", "stress-fork", "stress-vm", "xz", "python3"} < WORKLOADS.keys()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WORKLOADS)
def test_scripts_are_valid_shell(name: str, size: workloads.Size) -> None:
    text = recipe.script(WORKLOADS[name], size)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    marks = [line for line in text.splitlines() if line.startswith("cosim-mark")]
    assert len(marks) == (0 if WORKLOADS[name].own_marks else 2)


def test_select_adds_what_the_guest_runs() -> None:
    made = GuestSpec("workloads", Path("k"), "console=ttyS0", "mark:begin", "mark:end", "")
    chosen = workloads.select(made, WORKLOADS["xz"].run("full"))
    assert chosen.append == 'console=ttyS0 cosim.run="xz:full"'
    with pytest.raises(UsageError, match="double quote"):
        workloads.select(made, 'echo "a"')


# -- the programs' libraries ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("soname", "package"),
    [
        ("libgmp.so.10", "libgmp10"),
        ("libreadline.so.8", "libreadline8t64"),
        ("libsqlite3.so.0", "libsqlite3-0"),
        ("libgcc_s.so.1", "libgcc-s1"),
        ("libz.so.1", "zlib1g"),
        ("libother.so.3", None),
    ],
)
def test_package_of_a_library(soname: str, package: str | None) -> None:
    names = {"libgmp10", "libreadline8t64", "libsqlite3-0", "libgcc-s1", "libother2"}
    assert packages.package_of(soname, names) == package


class _Apt:
    """Serves packages that the test made itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names: list[str] = []

    def add(self, name: str, depends: str, files: dict[str, Path]) -> None:
        root = self._folder / name
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Test <t@t>\n"
            f"Depends: {depends}\nDescription: test\n"
        )
        for path, source in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, root / path)
        command = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(root) + ".deb"]
        subprocess.run(command, check=True, capture_output=True)
        self.names.append(name)

    def update(self, step: object) -> None: ...

    def package(self, name: str) -> Package:
        if name not in self.names:
            raise EnvironmentFault(f"Debian has no package {name}")
        control = (self._folder / name / "DEBIAN/control").read_text()
        return Package(name, "1", "", 0, control.partition("Depends: ")[2].partition("\n")[0])

    def download(self, package: Package, step: object) -> Path:
        return self._folder / f"{package.name}.deb"

    def clean(self) -> None: ...


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Apt:
    """A program that needs libone, which needs libtwo; libc is libc6's."""
    folder = tmp_path / "made"
    folder.mkdir()
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    gcc = [str(tools.cross_compiler().path), "-nostdlib", "-shared", "-fPIC", str(source)]
    for name, needs in (("two", []), ("one", ["two"]), ("program", ["one"])):
        words = [*gcc, f"-Wl,-soname,lib{name}.so.1", "-Wl,--no-as-needed"]
        words += [str(folder / f"lib{other}.so") for other in needs]
        subprocess.run([*words, "-o", str(folder / f"lib{name}.so")], check=True)
    made = _Apt(folder)
    libraries = "usr/lib/riscv64-linux-gnu"
    made.add("tool", "libone1 (>= 1)", {"usr/bin/tool": folder / "libprogram.so"})
    made.add(
        "libone1",
        "libtwo1t64, libbig9 | libsmall",
        {
            f"{libraries}/libone.so.1.2": folder / "libone.so",
            f"{libraries}/libunused.so.1": folder / "libprogram.so",
        },
    )
    made.add("libtwo1t64", "", {f"{libraries}/libtwo.so.1": folder / "libtwo.so"})
    monkeypatch.setattr(packages, "PROGRAMS", {"tool": ("usr/bin/tool",)})
    monkeypatch.setattr(packages, "Apt", lambda _: made)
    return made


def test_fetch_takes_what_programs_need_and_no_more(apt: _Apt, tmp_path: Path) -> None:
    folder = tmp_path / "debian"
    taken = packages.fetch(folder, lambda *_: None)
    assert taken == {"tool": "1", "libone1": "1", "libtwo1t64": "1"}
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    libraries = packages.LIBRARIES
    assert files == {
        *("packages.json", "usr/bin/tool"),
        *(f"{libraries}/libone.so.1", f"{libraries}/libtwo.so.1"),
    }
    assert packages.fetched(folder) == taken


def test_fetch_names_a_library_that_nothing_holds(apt: _Apt, tmp_path: Path) -> None:
    apt.names.remove("libtwo1t64")
    control = tmp_path / "made/libone1/DEBIAN/control"
    control.write_text(control.read_text().replace("libtwo1t64", "libthree"))
    with pytest.raises(EnvironmentFault, match=r"libone\.so\.1 needs .*libtwo\.so\.1"):
        packages.fetch(tmp_path / "debian", lambda *_: None)
    assert not list(tmp_path.glob("debian*"))


def test_fetch_names_a_program_that_a_package_lost(
    apt: _Apt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "PROGRAMS", {"tool": ("usr/bin/tool", "usr/bin/gone")})
    with pytest.raises(EnvironmentFault, match="tool holds no usr/bin/gone"):
        packages.fetch(tmp_path / "debian", lambda *_: None)


def test_hosted_programs_are_static_with_the_mark_in_place(tmp_path: Path) -> None:
    output = tmp_path / "program"
    compiler.build_hosted(
        output,
        [reference.SOURCES / "mprotect_bench.c"],
        recipe.MARK_FLAGS,
    )
    with output.open("rb") as file:
        elf = ELFFile(file)
        mark = elf.get_section_by_name(".cosim_mark")
        assert mark is not None
        assert mark["sh_addr"] == marks.USER_MARK
        # nop; c.jr ra would be shorter: both are four bytes here.
        assert mark.data() == bytes.fromhex("1300000067800000")
        assert not any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())


def test_command_lists_every_workload() -> None:
    answer = CliRunner().invoke(guest_command.command, ["workloads", "--json"])
    listed = json.loads(answer.stdout)["workloads"]
    assert [each["name"] for each in listed] == list(WORKLOADS)
    table = CliRunner().invoke(guest_command.command, ["workloads"]).stdout
    assert "stand-in for 429.mcf" in table
    assert max(map(len, table.splitlines())) <= 100
