"""The workloads: what each one is, what it stands for, and what runs between its marks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from guest.workloads import generate

Size = Literal["test", "full"]
"""``test`` takes up to about one second of plain emulation, ``full`` up to about ten."""

SIZES: tuple[Size, ...] = ("test", "full")

INPUT = "workloads"
"""The folder of the image with the programs' input."""


@dataclass(frozen=True)
class Workload:
    """One program of the ``workloads`` guest.

    ``what`` describes it in one line.  ``stand_in`` is true if our own program copies the access
    pattern of another.  Then ``stands_for`` names that program, and a report must say so.
    Otherwise ``stands_for`` is the paper's program, of which this is a real version, or None.

    ``command`` is what the shell runs between the marks ``begin`` and ``end``; ``arguments`` are
    its ``"$@"`` by size.  ``prepare`` runs before the marks.  ``check`` runs after them and prints
    the check sum.  ``own_marks`` is true if the program itself sets the marks around its loop.
    ``memory`` is the largest resident set of one program, in MiB, by size.
    """

    name: str
    what: str
    command: str
    arguments: Mapping[Size, str]
    memory: Mapping[Size, int]
    stands_for: str | None = None
    stand_in: bool = False
    prepare: str = ""
    # The last word that the program printed.
    check: str = "sed -n '$s/.* //; $p' output"
    own_marks: bool = False

    def run(self, size: Size) -> str:
        """Return the value of ``cosim.run=`` on the kernel's command line that runs this."""
        return f"{self.name}:{size}"


_CC1 = "/usr/libexec/gcc/riscv64-linux-gnu/14/cc1"
_XZ = "/usr/bin/xz"  # busybox's shell would run its own xz
_STRESS = "stress-ng --seed 1 --metrics --yaml report.yaml"
_SOCKET = "/tmp/redis.socket"

_ALL = (
    Workload(
        name="cc1",
        what="Debian's riscv64 C compiler 14.2, -O1, on a generated preprocessed file",
        stands_for="403.gcc",
        command=f'{_CC1} -quiet -fpreprocessed -O1 -o output.s "$1"',
        arguments={"test": f"/{INPUT}/test.i", "full": f"/{INPUT}/full.i"},
        memory={"test": 37, "full": 44},
        # The number of functions in the assembly, and its digest.
        check="echo $(grep -c '@function' output.s)-$(busybox sha256sum < output.s | cut -c1-16)",
    ),
    Workload(
        name="mcf-like",
        what="minimum-cost flow on a random network, pointer chasing",
        stands_for="429.mcf",
        stand_in=True,
        command='mcf-like "$@"',
        arguments={"test": "4000 20000 8 1", "full": "200000 1000000 3 1"},
        memory={"test": 2, "full": 70},
    ),
    Workload(
        name="milc-like",
        what="conjugate gradients over a four-dimensional lattice of SU(3) matrices",
        stands_for="433.milc",
        stand_in=True,
        command='milc-like "$@"',
        arguments={"test": "6 4 1", "full": "18 4 1"},
        memory={"test": 1, "full": 86},
    ),
    Workload(
        name="astar-like",
        what="A* searches on a grid with walls",
        stands_for="473.astar",
        stand_in=True,
        command='astar-like "$@"',
        arguments={"test": "256 4 1", "full": "2048 8 1"},
        memory={"test": 1, "full": 65},
    ),
    Workload(
        name="sqlite3",
        what="SQLite: load, two indexes, joins, update, delete, vacuum",
        prepare="rm -f database",
        command='sqlite3 -bail database < "$1"',
        arguments={"test": f"/{INPUT}/test.sql", "full": f"/{INPUT}/full.sql"},
        memory={"test": 4, "full": 7},
        check="busybox sha256sum < output | cut -c1-16",
    ),
    Workload(
        name="redis",
        what="Redis server and its benchmark (arguments: requests per command, keys, value bytes)",
        prepare=f"""\
redis-server --port 0 --unixsocket {_SOCKET} --save "" > server.log 2>&1 &
for i in $(seq 200); do
    redis-cli -s {_SOCKET} ping > /dev/null 2>&1 && break
    usleep 10000
done""",
        command=f"redis-benchmark -s {_SOCKET} -q -c 10 -t set,get,incr,lpush,lpop,hset "
        '-n "$1" -r "$2" -d "$3"',
        arguments={"test": "500 1000 100", "full": "3000 20000 1000"},
        memory={"test": 18, "full": 25},
        # The server's count of calls of each command.  Which keys are hit cannot be seeded.
        check=f"""\
redis-cli -s {_SOCKET} info commandstats |
    sed -nE '/_(set|get|incr|lpush|lpop|hset):/s/.*_(.*):calls=([0-9]*),.*rejected_calls=0,\
failed_calls=0.*/\\1=\\2/p' | sort | xargs | sed 's/ /,/g'
redis-cli -s {_SOCKET} shutdown nosave 2> /dev/null""",
    ),
    Workload(
        name="stress-fork",
        what="stress-ng's fork stressor",
        command=f'{_STRESS} --fork 1 --fork-ops "$1"',
        arguments={"test": "50", "full": "1000"},
        memory={"test": 10, "full": 10},
        check="sed -n 's/.*bogo-ops: */forks=/p' report.yaml",
    ),
    Workload(
        name="stress-vm",
        what="stress-ng's vm stressor: maps, fills and verifies memory",
        command=f'{_STRESS} --vm 1 --vm-bytes "$1" --vm-ops "$2"',
        arguments={"test": "2M 2000", "full": "64M 20000"},
        memory={"test": 10, "full": 67},
        check="sed -n 's/.*bogo-ops: */operations=/p' report.yaml",
    ),
    Workload(
        name="xz",
        what="xz: compresses generated text and unpacks it again",
        command=f'{_XZ} -T1 -6 -c "$1" > packed.xz && {_XZ} -d -c packed.xz > unpacked',
        arguments={"test": f"/{INPUT}/test.txt", "full": f"/{INPUT}/full.txt"},
        memory={"test": 11, "full": 26},
        check="busybox sha256sum < unpacked | cut -c1-16",
    ),
    Workload(
        name="python3",
        what="Python 3.13: dictionaries, strings, sorting, a tree of tuples",
        command=f'python3.13 -I /{INPUT}/python_script.py "$@"',
        arguments={"test": "2000", "full": "200000"},
        memory={"test": 9, "full": 27},
    ),
    Workload(
        name="mprotect-bench",
        what="mprotect of single pages among reads (arguments: pages, operations, share, seed)",
        stands_for="the paper's micro-benchmark",
        stand_in=True,
        command='mprotect-bench "$@"',
        arguments={"test": "64 2000 50 1", "full": "1024 100000 50 1"},
        memory={"test": 1, "full": 5},
        own_marks=True,
    ),
    Workload(
        name="fork-bench",
        what="forks that copy pages on write (arguments: pages, forks, share, seed)",
        command='fork-bench "$@"',
        arguments={"test": "256 10 25 1", "full": "4096 60 25 1"},
        memory={"test": 1, "full": 17},
        own_marks=True,
    ),
)

WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}
"""Every workload by name; the paper's are first."""


def inputs() -> dict[str, bytes]:
    """Return the generated input files by their names in :data:`INPUT`."""
    return {
        "test.i": generate.c_source(functions=1, declarations=10),
        "full.i": generate.c_source(functions=12, declarations=250),
        "test.sql": generate.sql(1000),
        "full.sql": generate.sql(20000),
        "test.txt": generate.text(100_000),
        "full.txt": generate.text(1_500_000),
    }
