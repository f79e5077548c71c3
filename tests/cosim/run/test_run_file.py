"""Run files: what they mean, and where what is wrong with them is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.errors import RunFileError, UsageError
from cosim.kernel.symbols import Symbols
from cosim.machine.devices import Disk, Share
from cosim.models.model_options import parse_machine
from cosim.run import region, request, run_file, toml_lines
from cosim.run.initrd_additions import Added
from cosim.run.run_file import RunFile
from cosim.run.run_spec import Exchange, RunSpec
from cosim.session.backends import BACKENDS, FOR_CAPTURE, FOR_RUN
from cosim.session.backends.both import Both
from cosim.session.backends.gdb import Gdb
from cosim.session.backends.plugin import Plugin
from tests.cosim.kernel.test_images import elf

EXAMPLES = sorted(
    path
    for path in (Path(__file__).parents[3] / "scripts" / "runs").glob("*.toml")
    # A sweep file is tested by its own loader.
    if "sweep" not in run_file.read(path)[1]
)


def load_file(path: Path, default: str = FOR_RUN) -> RunFile:
    return run_file.load(path, BACKENDS, default)


def load(tmp_path: Path, text: str) -> dict[str, RunSpec]:
    path = tmp_path / "file.toml"
    path.write_text(text)
    return {run.name: run for run in load_file(path).runs}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_right(path: Path) -> None:
    loaded = load_file(path)
    assert loaded.runs
    assert all(run.guest or run.kernel for run in loaded.runs)


def test_a_run_starts_from_a_snapshot_beside_its_file(tmp_path: Path) -> None:
    (tmp_path / "init.snap").touch()
    text = 'guest = "linux"\nfrom_snapshot = "init.snap"\n'
    assert load(tmp_path, text)["file"].snapshot == tmp_path / "init.snap"
    with pytest.raises(RunFileError, match=r":3: workload: has no effect with from_snapshot"):
        load(tmp_path, text + 'workload = "ls"\n')


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_one_run_is_named_after_its_file(tmp_path: Path) -> None:
    text = """
guest = "linux"
backend = "mi"
from = "mark:a"
to = "console:bye$"
step = 3
time_limit = 5
models = ["lsp:fast_path=off", "shadow"]
machine.tlb.second = [128, 4]
[[console]]
expect = "# "
send = "ls\\n"
[[console]]
expect = "# $"
within = 2
"""
    assert load(tmp_path, text) == {
        "file": RunSpec(
            name="file",
            guest="linux",
            backend=Gdb(step=3),
            region_from="mark:a",
            region_to="console:bye$",
            time_limit=5.0,
            models=("lsp:fast_path=off", "shadow"),
            machine={"tlb": {"second": [128, 4]}},
            console=(Exchange("# ", "ls\n", 60.0), Exchange("# $", "", 2.0)),
        )
    }
    loaded = load_file(tmp_path / "file.toml")
    assert loaded.output == Path("file-results")


def test_the_devices_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "root.img").write_bytes(bytes(512))
    (tmp_path / "tool").write_bytes(b"x")
    text = """guest = "linux"
backend = "plugin"
disk = ["root.img,bus=mmio"]
disk_limit = "1M"
net = "user"
share = "."
board = "acpi=off"
initrd_add = ["tool"]
qemu = "-device virtio-rng-pci"
like = "xv6"
"""
    (run,) = load(tmp_path, text.replace('"."', f'"{tmp_path},tag=files"')).values()
    assert run.disks == (Disk(tmp_path / "root.img", bus="mmio"),)
    assert run.disk_limit == 1 << 20
    assert run.shares == (Share(tmp_path, "files"),)
    assert run.initrd_add == (Added(tmp_path / "tool", "tool"),)
    assert run.qemu == ("-device", "virtio-rng-pci")
    assert (run.net, run.board, run.like) == ("user", "acpi=off", "xv6")
    document = json.loads(json.dumps(run.to_json()))
    assert document["disks"][0]["path"] == str(tmp_path / "root.img")
    assert "pflash" not in document, "documents of runs without devices stay as they were"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("disk_write = true", r":2: disk_write: needs disk"),
        (
            'disk = "file.toml"\ndisk_write = true',
            r":3: disk_write: cannot be used with the gdb\+plugin backend, which runs the guest ag",
        ),
        (
            'disk = "file.toml"\nbackend = "plugin"\ndisk_write = true\ndisk_limit = "1M"',
            r":5: disk_limit: has no effect with disk_write",
        ),
        ('share = "/"', r":2: share: has the tag \'\'; a tag has at most 31 letters"),
        ('share = "/,tag=r"', r":2: share: cannot be used with the gdb\+plugin backend, because"),
        ('qemu = "-netdev user,id=n"', r":2: qemu: has -netdev, which QEMU's recordings do not"),
        ('like = "minix"', r":2: like: is 'minix'; it can be xv6"),
        ('like = ["xv6"]', r":2: like: is \['xv6'\]; it can be xv6"),
        ('disk = "file.toml"\ndisk_limit = -5', r":3: disk_limit: is -5, not a number of bytes"),
    ],
)
def test_devices_that_a_run_cannot_have(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        load(tmp_path, f'guest = "linux"\n{text}\n')


def test_the_backend_of_a_run_that_names_none(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text('guest = "micro"\n[[run]]\nname = "a"\n[[run]]\nname = "b"\nstep = 2\n')
    assert [run.backend for run in load_file(path).runs] == [Both(), Both(step=2)]
    assert [run.backend for run in load_file(path, FOR_CAPTURE).runs] == [Plugin(), Both(step=2)]
    path.write_text('guest = "micro"\nfilter = 8\n')
    assert load_file(path, FOR_CAPTURE).runs[0].backend == Plugin(filter=8)
    assert load_file(path).runs[0].backend == Both(filter=8)
    path.write_text('guest = "micro"\nsmp = 2\nruns = 3\n')
    (several,) = load_file(path).runs
    assert (several.backend, several.harts, several.runs) == (Plugin(), 2, 3)
    path.write_text('guest = "micro"\nsmp = 1\n')
    assert load_file(path).runs[0].backend == Both()
    path.write_text('guest = "micro"\nbackend = "gdb"\nfilter = 8\n')
    message = r":3: filter: works only with the gdb\+plugin or plugin backend; this"
    with pytest.raises(RunFileError, match=message):
        load_file(path)


def test_the_older_name_of_a_backend(tmp_path: Path) -> None:
    assert load(tmp_path, 'guest = "micro"\nbackend = "mi"')["file"].backend == Gdb()


def test_options_of_the_command_line_alone_are_unknown(tmp_path: Path) -> None:
    for key in ("live = true", "step_all = true", 'mi_log = "x"', 'gdb = "x"'):
        with pytest.raises(RunFileError, match=r":2: \w+: unknown key; known: guest"):
            load(tmp_path, f'guest = "micro"\n{key}')


def test_a_machine_is_written_as_on_the_command_line(tmp_path: Path) -> None:
    text = """
guest = "linux"
[machine]
gstage_page = "2M"
tlb = {data = "16x4", fetch = "none", second = "none", superpages = "yes", seed = "7"}
"""
    typed = "gstage_page=2M,tlb.data=16x4,tlb.fetch=none,tlb.second=none"
    typed += ",tlb.superpages=yes,tlb.seed=7"
    assert load(tmp_path, text)["file"].machine == parse_machine(typed)


def test_runs_override_what_is_common(tmp_path: Path) -> None:
    text = """
output = "somewhere"
guest = "linux"
trace = true
models = ["lsp", "shadow"]
machine.footprint_data = 2
[[run]]
name = "a"
[[run]]
name = "b"
guest = "micro"
trace = false
models = ["shadow:roots=2"]
[run.machine]
setup = "base"
"""
    runs = load(tmp_path, text)
    assert runs["a"].guest == "linux"
    assert runs["a"].trace
    assert runs["a"].models == ("lsp", "shadow")
    assert runs["a"].machine == {"footprint_data": 2}
    assert runs["b"].guest == "micro"
    assert not runs["b"].trace
    assert runs["b"].models == ("shadow:roots=2",)
    assert runs["b"].machine == {"footprint_data": 2, "setup": "base"}
    assert load_file(tmp_path / "file.toml").output == Path("somewhere")


def test_a_matrix_is_every_combination(tmp_path: Path) -> None:
    text = """
[matrix]
append = ["no4lvl", "no5lvl x"]
[[run]]
name = "l"
guest = "linux"
[run.matrix]
machine.walk_cache_ways = [1, 4]
[[run]]
name = "m"
guest = "micro"
"""
    runs = load(tmp_path, text)
    assert {name: (run.append, run.machine) for name, run in runs.items()} == {
        "l-append=no4lvl-walk_cache_ways=1": ("no4lvl", {"walk_cache_ways": 1}),
        "l-append=no4lvl-walk_cache_ways=4": ("no4lvl", {"walk_cache_ways": 4}),
        "l-append=no5lvl_x-walk_cache_ways=1": ("no5lvl x", {"walk_cache_ways": 1}),
        "l-append=no5lvl_x-walk_cache_ways=4": ("no5lvl x", {"walk_cache_ways": 4}),
        "m-append=no4lvl": ("no4lvl", {}),
        "m-append=no5lvl_x": ("no5lvl x", {}),
    }


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"x")
    (tmp_path / "fw").write_bytes(b"x")
    with pytest.raises(RunFileError, match=r"file\.toml:1: kernel: names .*k, which is not a file"):
        load(tmp_path, 'kernel = "k"')
    with pytest.raises(RunFileError, match=r"file\.toml:1: kernel: "):
        load(tmp_path, 'kernel = "fw"')  # There, but no kernel.
    runs = load(tmp_path, 'guest = "micro"\nbios = "fw"')
    assert runs["file"].bios == str(tmp_path / "fw")


def test_a_flat_kernel_needs_its_load_address_and_no_other_may_have_one(tmp_path: Path) -> None:
    (tmp_path / "flat").write_bytes(b"\x13\0\0\0" * 9)
    (tmp_path / "elf").write_bytes(elf())
    for place in ("0x8020_0000", '"0x80200000"'):
        runs = load(tmp_path, f'kernel = "flat"\nload_address = {place}')
        assert runs["file"].load_address == 0x8020_0000
    for text, says in (
        ('kernel = "flat"', ":1: kernel: names .*flat, which is .*give load_address, too"),
        ('kernel = "elf"\nload_address = 0x80200000', ":2: load_address: is for a flat binary"),
        ('guest = "linux"\nload_address = 0x80200000', ":2: load_address: needs kernel with a"),
        ('kernel = "flat"\nload_address = 0x1000', ":2: load_address: is 4096, not an address"),
        ('kernel = "flat"\nload_address = "here"', ":2: load_address: is 'here', not an address"),
        ('kernel = "flat"\nload_address = true', ":2: load_address: is True, not an address"),
    ):
        with pytest.raises(RunFileError, match=says):
            load(tmp_path, text)


def test_firmware_whose_name_means_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("none", "default"):
        Path(name).write_bytes(b"\x6f\0\0\0")
        found = request.check("bios", f"./{name}", Path(), BACKENDS)
        assert found == str(tmp_path / name)
    assert request.check("bios", "none", Path(), BACKENDS) == "none"


def test_firmware_may_be_all_that_runs(tmp_path: Path) -> None:
    (tmp_path / "fw").write_bytes(b"x")
    assert load(tmp_path, 'bios = "fw"')["file"].kernel is None
    with pytest.raises(RunFileError, match=r":1: guest: is missing"):
        load(tmp_path, 'bios = "none"')
    with pytest.raises(RunFileError, match=r":2: append: needs kernel, which takes it"):
        load(tmp_path, 'bios = "fw"\nappend = "x"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('guest = "linux\n', r"not valid TOML: .*line 1"),
        ("", r"file\.toml:1: guest: is missing"),
        ('\nguest = "linxu"', r":2: guest: is 'linxu'; the guests are linux"),
        ('guest = "linux"\nbackedn = "mi"', r":2: backedn: unknown key; known: guest, kernel"),
        (
            'guest = "linux"\nbackend = "kvm"',
            r":2: backend: is 'kvm'; the backends are gdb\+plugin, gdb, plugin",
        ),
        ('guest = "linux"\n[append]\nx = 1', r":3: append\.x: append is not a table"),
        ('guest = "linux"\nmemory = "lots"', r":2: memory: 'lots' is not a memory size"),
        ('guest = "linux"\n\ntime_limit = 0', r":3: time_limit: is 0, not a number of seconds"),
        ('guest = "linux"\ntrace = "yes"', r":2: trace: is 'yes', neither true nor false"),
        ('guest = "linux"\nstep = -1', r":2: step: is -1, not a whole number"),
        ('guest = "linux"\nfrom = "mark:"', r":2: from: is 'mark:'; a label is 1\.\.32 ASCII"),
        ('guest = "linux"\nappend = "a\\u0000"', r":2: append: is 'a\\x00'; no program can"),
        ('guest = "linux"\noutput = "a\\u0000"', r":2: output: is 'a\\x00', not the name of a"),
        (
            'guest = "linux"\n[matrix]\n'
            + "".join(f"{key} = [{'1,' * 100}]\n" for key in ("step", "filter", "memory", "cpu")),
            r":2: matrix: gives 100,000,000 runs; a file may have 1,000",
        ),
        ("a = " + "[" * 2000 + "]" * 2000, r"file\.toml: its tables or arrays are nested too deep"),
        (".".join("a" * 2000) + " = 1", r"file\.toml: its tables or arrays are nested too deep"),
        ('guest = "linux"\nto = "console:("', r":2: to: is '\(', not a regular expression"),
        (
            'guest = "linux"\n[[console]]\nexpect = "a"\n[[console]]\nexpect = "*"',
            r":2: console: step 2 is '\*', not a regular expression",
        ),
        ('guest = "linux"\n[[console]]\nsend = "a"', r":2: console: step 1 has no expect"),
        (
            'guest = "linux"\n[[console]]\nexpect = "a"\nwithn = 1',
            r":2: console: step 1 has the unknown key 'withn'",
        ),
        ('guest = "linux"\n# c\nworkload = 3', r":3: workload: is 3, not a text"),
        ('guest = "linux"\nsmp = 9', r":2: smp: is 9, not a number of harts from 1 to 8$"),
        ('guest = "linux"\nsmp = true', r":2: smp: is True, not a number of harts"),
        (
            'guest = "linux"\nsmp = 2\nstep = 3',
            r":2: smp: works only with the plugin backend; this",
        ),
        ('guest = "linux"\nruns = 3', r":2: runs: needs smp with more than one hart"),
        (
            'guest = "linux"\nsmp = 2\nruns = 3\ntrace = true',
            r":3: runs: cannot be used together with trace$",
        ),
        ('guest = "linux"\ninitrd = "file.toml"', r":2: initrd: needs kernel; a named guest has"),
        (
            'guest = "linux"\nbackend = "plugin"\nstep = 3',
            r":3: step: works only with the gdb\+plugin or gdb backend; this run uses plugin",
        ),
        (
            'guest = "linux"\n[machine]\nsetup = "x"',
            r":3: machine\.setup: machine: setup 'x' is neither base nor h",
        ),
        ('guest = "linux"\n[machine]\nharts = 2', r":3: machine\.harts: unknown key; known: setup"),
        (
            'guest = "linux"\n[machine.tlb]\nreplacement = "plru"\nsecond = [16, 3]\nseed = 2',
            r":4: machine\.tlb\.second: machine: tlb: PLRU needs a power of two",
        ),
        (
            'guest = "linux"\nmachine.footprint_code = 2\nmachine.tlb.second = [0, 4]',
            r":3: machine\.tlb\.second: machine: tlb: a TLB of 0 sets and 4 ways holds nothing",
        ),
        (
            'guest = "linux"\n[matrix]\nmachine.tlb.data = [[8, 4],\n[8]]',
            r":3: matrix\.machine\.tlb\.data: machine: tlb\.data cannot be \[8\], it is \[SETS",
        ),
        (
            'guest = "linux"\n\nmodels = ["native",\n"shdow"]',
            r":3: models: no policy is called 'shdow'; there are native",
        ),
        (
            'guest = "linux"\nmodels = ["shadow:roots=x"]',
            r":2: models: policy shadow: roots is all or switch or a number from 1, not 'x'",
        ),
        (
            'guest = "linux"\n[[run]]\nname = "a"\nmodels = ["lsp", "lsp"]',
            r":4: run\[0\]\.models: a model is named twice: lsp, lsp",
        ),
        (
            'guest = "linux"\nbackend = "plugin"\naccesses = false\nfilter = 8',
            r":4: filter: has no effect with accesses = false$",
        ),
        ('guest = "linux"\nto = "boot"', r":2: to: cannot be boot; only from can$"),
        ('guest = "linux"\nfrom = "power-off"', r":2: from: cannot be power-off; only to can$"),
        ('guest = "linux"\nmachine = 3', r":2: machine: is 3, not a table"),
        ('guest = "linux"\nmodels = "lsp"', r":2: models: is 'lsp', not a list of models"),
        ('guest = "linux"\nmodels.lsp = 1', r":2: models\.lsp: models is not a table"),
        ('guest = "linux"\nrun = 1', r":2: run: must be tables"),
        ('guest = "linux"\n[[run]]\ntrace = true', r":2: run\[0\]\.name: is None; give letters"),
        ('guest = "linux"\n[[run]]\nname = "../x"', r":3: run\[0\]\.name: is '\.\./x'"),
        (
            'guest = "linux"\n[[run]]\nname = "a"\n[[run]]\nname = "a"',
            r":4: run\[1\]: a second run is named 'a'",
        ),
        ('guest = "linux"\n[matrix]\nappend = "x"', r":3: matrix\.append: is 'x', not a list"),
        (
            'guest = "linux"\n[matrix]\nbackend = [\n"mi",\n"kvm"]',
            r":3: matrix\.backend: is 'kvm'",
        ),
        (
            '[[run]]\nname = "a"\nguest = "linux"\n[[run]]\nname = "b"\nguest = "x"',
            r":6: run\[1\]\.guest: is 'x'",
        ),
        (
            'guest = "linux"\n[matrix]\nmachine.walk_cache_ways = 4',
            r":3: matrix\.machine\.walk_cache_ways: .*; write \[4\], or put it into \[machine\]$",
        ),
        ('guest = "linux"\n[matrix]\nappend = []', r":3: matrix\.append: is empty; give one value"),
        ('guest = "linux"\nx = 1', r":2: x: unknown key; .*, machine, output, run, matrix$"),
        ('[[run]]\nname = "a"\nx = 1', r":3: run\[0\]\.x: unknown key; .*, machine, name, matrix$"),
        ('guest = "linux"\noutput = 3', r":2: output: is 3"),
    ],
)
def test_errors_name_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RunFileError) as caught:
        load(tmp_path, text)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no such file"):
        load_file(tmp_path / "x.toml")
    with pytest.raises(RunFileError, match="cannot be read as text"):
        load_file(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFileError, match="cannot be read as text"):
        load_file(tmp_path / "x.toml")


TOML = '''# comment
a = 1

b = [
  1,  # one
  2,
]
[t.u]
x = """
y = 1
[no.table]
"""
"quoted key" = 1
[[run]]
name = "a"

[[run]]
name = "b"
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("b",), 4),
        (("b", 1), 4),
        (("t",), 8),
        (("t", "u", "x"), 9),
        (("t", "u", "quoted key"), 13),
        (("run", 0), 14),
        (("run", 1), 17),
        (("run", 1, "name"), 18),
        (("run", 1, "missing"), 17),
        (("missing",), 1),
    ],
)
def test_lines_of_keys(path: toml_lines.Place, line: int) -> None:
    assert toml_lines.find(TOML, path) == line


@given(st.lists(st.sampled_from(["x", "# c", "", "s", "a"]), max_size=12))
def test_lines_of_keys_in_any_layout(parts: list[str]) -> None:
    """Statements of one, three and two lines between comments and blank lines."""
    lines: list[str] = []
    expected: dict[str, int] = {}
    for index, part in enumerate(parts):
        if part in ("x", "s", "a"):
            expected[f"{part}{index}"] = len(lines) + 1
        text = {"x": "= 1", "s": '= """\nq = 1\n"""', "a": "= [1,\n 2]"}.get(part)
        lines += (f"{part}{index} {text}" if text else part).split("\n")
    for key, line in expected.items():
        assert toml_lines.find("\n".join(lines), (key,)) == line


def test_a_run_file_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    for name in ("fifo.toml", "endless.toml"):
        with pytest.raises(RunFileError, match="it is not a regular file"):
            load_file(tmp_path / name)


def test_an_address_has_64_bits() -> None:
    symbols = Symbols(np.zeros(0, np.uint64), [])
    assert region.parse("0xffffffffffffffff", symbols, end=False).address == (1 << 64) - 1
    with pytest.raises(UsageError, match="it has more than 64 bits"):
        region.parse("0x1ffffffffffffffff", symbols, end=False)
