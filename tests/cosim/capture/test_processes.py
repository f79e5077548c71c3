"""Names of processes: Python's and C's reading of a small Linux, against what that Linux did."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cosim.capture.processes import LARGEST_PID, Process, Processes, ProcessLayout, shown_name
from hypervisor_model.isa import pte
from hypervisor_model.isa.atp import Mode, make
from hypervisor_model.jit import signed, unsigned
from tests.cosim.capture.plugin.harness import compiled

BASE = 0x8000_0000
PAGES = 96
LINEAR = 0xFFFF_FFD8_0000_0000
"""Where the small Linux maps all RAM, with one leaf of 1 GiB."""
TASK, MM = 0x740, 0x80
"""Bytes of a task and of an mm.  Some tasks lie in two pages."""
LAYOUT = ProcessLayout(init_task=LINEAR, tasks=0x18, mm=0x30, pid=0x44, comm=0x6F5, pgd=0x28)
TASKS, MMS, ROOTS = 16, 16, 20


class Layout(ctypes.Structure):
    _fields_ = (
        ("given", ctypes.c_bool),
        ("init_task", ctypes.c_uint64),
        *((name, ctypes.c_uint) for name in ("tasks", "mm", "pid", "comm", "pgd")),
    )


class Named(ctypes.Structure):
    _fields_ = (("number", ctypes.c_uint32), ("pid", ctypes.c_uint32), ("name", ctypes.c_char * 16))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    yield compiled(tmp_path_factory.mktemp("harness"))


@dataclass
class Label:
    """What an address space should be called."""

    pid: int
    name: str
    left: bool = False


@dataclass
class Task:
    at: int
    """Its virtual address."""
    pid: int
    comm: bytes
    mm: int = 0
    root: int = 0
    labels: list[Label] = field(default_factory=list)
    """Of the address space that it has now."""


@dataclass
class Linux:
    """A Linux with its tasks, address spaces and roots in RAM; one hart."""

    ram: np.ndarray = field(default_factory=lambda: np.zeros(PAGES * 512, np.int64))
    tasks: list[Task] = field(default_factory=list)
    zombies: list[Task] = field(default_factory=list)
    satp: int = 0
    labels: list[Label] | None = None
    """Of the address space that is loaded."""
    owner: Task | None = None
    pids: int = 0

    def __post_init__(self) -> None:
        self.free = {
            "task": [LINEAR + TASK * n for n in range(1, TASKS)],
            "mm": [LINEAR + 0x10000 + MM * n for n in range(MMS)],
            "root": [BASE + 0x20000 + 0x1000 * n for n in range(ROOTS)],
        }
        self.link([])
        self.put(LINEAR + LAYOUT.comm, b"swapper/0")

    def put(self, va: int, data: bytes) -> None:
        self.ram.view(np.uint8)[va - LINEAR :][: len(data)] = np.frombuffer(data, np.uint8)

    def link(self, tasks: list[Task]) -> None:
        ring = [LINEAR, *(task.at for task in tasks)]
        for here, there in zip(ring, [*ring[1:], ring[0]], strict=True):
            self.put(here + LAYOUT.tasks, struct.pack("<Q", there + LAYOUT.tasks))

    def give_mm(self, task: Task) -> None:
        task.mm, task.root = self.free["mm"].pop(0), self.free["root"].pop(0)
        task.labels = []
        self.put(task.root - BASE + LINEAR, bytes(4096))
        leaf = BASE >> 2 | pte.V | pte.R | pte.W | pte.A | pte.D
        entry = task.root - BASE + LINEAR + 8 * (LINEAR >> 30 & 511)
        self.put(entry, struct.pack("<Q", leaf))
        self.put(task.mm + LAYOUT.pgd, struct.pack("<Q", task.root - BASE + LINEAR))
        self.put(task.at + LAYOUT.mm, struct.pack("<Q", task.mm))

    def drop_mm(self, mm: int, root: int) -> None:
        # What was freed last is used first, as in Linux.
        self.free["mm"].insert(0, mm)
        self.free["root"].insert(0, root)

    def rename(self, task: Task, comm: bytes) -> None:
        task.comm = comm
        self.put(task.at + LAYOUT.comm, comm.ljust(16, b"\0"))

    def fork(self, comm: bytes) -> None:
        if not self.free["task"] or len(self.free["root"]) < 2:
            return
        self.pids += 1
        task = Task(self.free["task"].pop(0), self.pids, comm)
        self.put(task.at, bytes(TASK))
        self.put(task.at + LAYOUT.pid, struct.pack("<I", task.pid))
        self.rename(task, comm)
        self.give_mm(task)
        self.tasks.append(task)
        self.link(self.tasks + self.zombies)

    def exit(self, task: Task) -> None:
        """The running task ends.  Its address space goes when the hart leaves it."""
        self.put(task.at + LAYOUT.mm, bytes(8))
        self.tasks.remove(task)
        self.zombies.append(task)

    def reap(self) -> None:
        for task in self.zombies:
            self.free["task"].insert(0, task.at)
            if task is self.owner:
                self.owner = None
        self.zombies.clear()
        self.link(self.tasks)

    def load(self, task: Task) -> None:
        """A satp write: the labels change as they should."""
        left = self.owner
        if self.labels and left is not None and not self.labels[-1].left:
            self.labels[-1].name = shown_name(left.comm)
            self.labels[-1].left = True
        self.satp = unsigned(make(Mode.SV39, task.root, task.pid))
        name = shown_name(task.comm)
        if not task.labels or (task.labels[-1].left and task.labels[-1].name != name):
            task.labels.append(Label(task.pid, name))
        self.owner, self.labels = task, task.labels


names = st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name)
actions = st.lists(
    st.tuples(
        st.sampled_from(["fork", "switch", "switch", "exec", "exit", "rename", "reap"]),
        st.integers(0, 30),
        names,
    ),
    max_size=40,
)


class Both:
    """Python's reader and C's; each call compares them."""

    def __init__(self, library: ctypes.CDLL, linux: Linux) -> None:
        self.library = library
        self.python = Processes(linux.ram, BASE, LAYOUT)
        fields = (LAYOUT.tasks, LAYOUT.mm, LAYOUT.pid, LAYOUT.comm, LAYOUT.pgd)
        library.harness_processes(
            ctypes.c_void_p(linux.ram.ctypes.data),
            ctypes.c_uint64(BASE),
            ctypes.c_uint64(linux.ram.nbytes),
            Layout(True, LAYOUT.init_task, *fields),
        )

    def switch(self, old: int, new: int) -> int:
        self.leave(old)
        number = self.python.loaded(new)
        assert number == self.library.harness_process_loaded(ctypes.c_uint64(new))
        return number

    def leave(self, satp: int) -> None:
        self.python.leaves(signed(satp))
        self.library.harness_process_leaves(ctypes.c_uint64(satp))

    def found(self) -> dict[int, Process]:
        """What was found; C tells it in the order in which it was found."""
        out = ctypes.POINTER(Named)()
        count = self.library.harness_named(ctypes.byref(out))
        told = {}
        for one in out[:count]:
            raw = ctypes.string_at(ctypes.addressof(one) + Named.name.offset, 16)
            told[one.number] = Process(one.pid, shown_name(raw))
        assert told == self.python.found
        return told


_EXEC = ("exec", 0, b"a")


@settings(max_examples=100)
@example([_EXEC, _EXEC, _EXEC, ("exec", 0, b"b")])  # it comes back to a root
@given(actions)
def test_each_address_space_has_the_process_that_owns_it(
    library: ctypes.CDLL, todo: list[tuple[str, int, bytes]]
) -> None:
    linux = Linux()
    both = Both(library, linux)
    numbers: list[tuple[int, Label]] = []

    def load(task: Task) -> None:
        old = linux.satp
        number = both.switch(old, unsigned(make(Mode.SV39, task.root, task.pid)))
        linux.load(task)
        numbers.append((number, task.labels[-1]))

    for action, which, name in [("fork", 0, b"init"), ("switch", 0, b""), *todo]:
        running = linux.owner if linux.owner in linux.tasks else None
        task = linux.tasks[which % len(linux.tasks)] if linux.tasks else None
        if action == "fork":
            linux.fork(name)
        elif action == "switch" and task is not None and task is not linux.owner:
            gone = linux.zombies[-1:] if linux.owner in linux.zombies else []
            load(task)
            for zombie in gone:
                linux.drop_mm(zombie.mm, zombie.root)
        elif action == "exec" and running is not None and len(linux.free["root"]) > 1:
            old = running.mm, running.root
            labels, linux.labels = linux.labels, None
            linux.give_mm(running)
            # Whoever loads the new root leaves the old one, which is no longer the process's.
            if labels:
                labels[-1].left = True
            load(running)
            linux.drop_mm(*old)
            linux.rename(running, name)
        elif action == "exit" and running is not None and len(linux.tasks) > 1:
            linux.exit(running)
        elif action == "rename" and task is not None:
            linux.rename(task, name)
        elif action == "reap" and linux.owner not in linux.zombies:
            linux.reap()
    both.leave(linux.satp)
    if linux.labels and linux.owner is not None and not linux.labels[-1].left:
        linux.labels[-1].name = shown_name(linux.owner.comm)
    found = both.found()
    assert [found[number] for number, _ in numbers] == [
        Process(label.pid, label.name) for _, label in numbers
    ]
    # One name of one address space is one number.
    assert len({number for number, _ in numbers}) == len({id(label) for _, label in numbers})


@pytest.mark.parametrize("damage", ["loop", "nowhere", "pid", "no list"])
def test_a_damaged_list_names_nobody(library: ctypes.CDLL, damage: str) -> None:
    linux = Linux()
    for _ in range(3):
        linux.fork(b"a")
    both = Both(library, linux)
    link = linux.tasks[1].at + LAYOUT.tasks
    if damage == "loop":
        linux.put(link, struct.pack("<Q", linux.tasks[0].at + LAYOUT.tasks))
    elif damage == "nowhere":
        linux.put(link, struct.pack("<Q", 0x1234_5678_9ABC_DEF0))
    elif damage == "pid":
        linux.put(linux.tasks[2].at + LAYOUT.pid, struct.pack("<I", LARGEST_PID + 1))
    else:
        linux.put(LINEAR + LAYOUT.tasks, bytes(8))
    assert both.switch(0, unsigned(make(Mode.SV39, linux.tasks[2].root))) == 0
    assert both.found() == {}


def test_roots_that_no_process_owns_have_no_number(library: ctypes.CDLL) -> None:
    linux = Linux()
    linux.fork(b"a")
    both = Both(library, linux)
    for root in (0, BASE, BASE + 0x90000, 0xFFF_FFFF_F000):
        assert both.switch(0, unsigned(make(Mode.SV39, root))) == 0
    assert both.switch(0, 0) == 0
    assert both.found() == {}


def test_without_a_layout_nothing_has_a_number() -> None:
    linux = Linux()
    linux.fork(b"a")
    processes = Processes(linux.ram, BASE, None)
    assert processes.loaded(unsigned(make(Mode.SV39, linux.tasks[0].root))) == 0
    processes.leaves(0)
    assert processes.found == {}


def test_a_name_of_any_bytes_is_text() -> None:
    assert shown_name(b"sh\0rest of an older name"[:16]) == "sh"
    assert shown_name("größe".encode()) == "größe"
    assert shown_name(b"\xff\x1b[31m\n\0") == "\\xff\x1b[31m\n"
