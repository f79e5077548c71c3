"""What our workload kernels must print, computed another way.

Independent of the C programs but for the input, which has to be the same: other algorithms
(Bellman-Ford with a queue, Dijkstra without a heuristic, whole-lattice NumPy arrays).
:func:`native` is the same C program on this machine.
"""

from __future__ import annotations

import heapq
import subprocess
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosim.machine import tools
from guest import workloads
from guest.workloads.generate import Generator

SOURCES = Path(workloads.__file__).parent
_MASK = (1 << 64) - 1


def native(folder: Path, name: str, *arguments: object) -> str:
    """What the kernel ``name`` prints when compiled for this machine, with checks, in ``folder``.

    :raise AssertionError: it failed; the message is what it said.
    """
    program = folder / name
    if not program.exists():
        words = [str(tools.host_compiler().path), "-O1", "-std=gnu11", "-ffp-contract=off"]
        words += ["-fsanitize=undefined", "-fno-sanitize-recover", "-o", str(program)]
        subprocess.run([*words, str(SOURCES / f"{name}.c"), "-lm"], check=True)
    words = [str(program), *map(str, arguments)]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


class _Sum:
    """FNV-1a over 64-bit words, as ``mix`` of ``common.h``."""

    def __init__(self) -> None:
        self.value = 0xCBF29CE484222325

    def mix(self, word: int) -> None:
        for byte in (word & _MASK).to_bytes(8, "little"):
            self.value = (self.value ^ byte) * 0x100000001B3 & _MASK


def minimum_cost_flow(nodes: int, arcs: int, units: int, seed: int) -> tuple[int, int]:
    """Flow and cost that ``mcf-like`` must find."""
    random = Generator(seed)
    heads: list[int] = []
    costs: list[int] = []
    room: list[int] = []
    leaving: list[list[int]] = [[] for _ in range(nodes)]

    def connect(tail: int, head: int, cost: int, capacity: int) -> None:
        for start, end, price, space in ((tail, head, cost, capacity), (head, tail, -cost, 0)):
            leaving[start].append(len(heads))
            heads.append(end)
            costs.append(price)
            room.append(space)

    for _ in range(units):
        connect(0, 1 + random.below(nodes - 2), 0, 1)
        connect(1 + random.below(nodes - 2), nodes - 1, 0, 1)
    for _ in range(arcs):
        tail, head = 1 + random.below(nodes - 2), 1 + random.below(nodes - 2)
        cost = 1 + random.below(1000)
        connect(tail, head, cost, 1 + random.below(3))

    flow = total = 0
    while True:
        distance: list[int | None] = [None] * nodes
        via = [-1] * nodes
        distance[0] = 0
        queue, queued = deque([0]), [False] * nodes
        while queue:
            at = queue.popleft()
            queued[at] = False
            here = distance[at]
            assert here is not None
            for arc in leaving[at]:
                there = distance[heads[arc]]
                if room[arc] and (there is None or here + costs[arc] < there):
                    distance[heads[arc]] = here + costs[arc]
                    via[heads[arc]] = arc
                    if not queued[heads[arc]]:
                        queue.append(heads[arc])
                        queued[heads[arc]] = True
        cost_of_path = distance[nodes - 1]
        if cost_of_path is None:
            return flow, total
        at = nodes - 1
        while at:
            room[via[at]] -= 1
            room[via[at] ^ 1] += 1
            at = heads[via[at] ^ 1]
        flow += 1
        total += cost_of_path


def grid_paths(side: int, searches: int, seed: int) -> str:
    """The line that ``astar-like`` must print."""
    random = Generator(seed)
    costs = [1 + random.below(8) if random.below(4) else 0 for _ in range(side * side)]
    costs[0] = 1
    checksum, found, total = _Sum(), 0, 0

    def somewhere() -> int:
        while True:
            at = random.below(side * side)
            if costs[at]:
                return at

    for _ in range(searches):
        start, goal = somewhere(), somewhere()
        cost = _cheapest(costs, side, start, goal)
        found += cost > 0
        total += cost
        checksum.mix(cost)
    return f"paths {found} cost {total} checksum {checksum.value:016x}"


def _cheapest(costs: list[int], side: int, start: int, goal: int) -> int:
    distance = {start: 0}
    heap = [(0, start)]
    while heap:
        far, at = heapq.heappop(heap)
        if at == goal:
            return far
        if far > distance[at]:
            continue
        x, y = at % side, at // side
        for nx, ny in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)):
            to = ny * side + nx
            if 0 <= nx < side and 0 <= ny < side and costs[to]:
                there = far + costs[to]
                if there < distance.get(to, there + 1):
                    distance[to] = there
                    heapq.heappush(heap, (there, to))
    return 0


def lattice(side: int, iterations: int, seed: int) -> tuple[float, float]:
    """Square norms of solution and residual that ``milc-like`` must print."""
    sites = side**4
    random = Generator(seed)
    raw = np.array([_uniform(random) for _ in range(sites * 4 * 12)])
    rows = raw.reshape(sites, 4, 2, 3, 2).view(np.complex128)[..., 0]
    first = rows[:, :, 0] / np.linalg.norm(rows[:, :, 0], axis=-1, keepdims=True)
    along = np.sum(first.conj() * rows[:, :, 1], axis=-1, keepdims=True)
    second = rows[:, :, 1] - along * first
    second /= np.linalg.norm(second, axis=-1, keepdims=True)
    links = np.stack([first, second, np.cross(first, second).conj()], axis=2)
    # Site numbers count the first direction fastest, so axis 3 - d of the array is direction d.
    links = links.reshape(side, side, side, side, 4, 3, 3)
    start = np.array([_uniform(random) for _ in range(sites * 6)]).view(np.complex128)
    residual = start.reshape(side, side, side, side, 3)
    places = np.indices((side,) * 4)

    def dirac(v: NDArray[np.complex128]) -> NDArray[np.complex128]:
        result = np.zeros_like(v)
        parity = np.zeros((side,) * 4)
        for d in range(4):
            u = links[..., d, :, :]
            ahead = np.einsum("...ij,...j->...i", u, np.roll(v, -1, 3 - d))
            behind = np.roll(np.einsum("...ji,...j->...i", u.conj(), v), 1, 3 - d)
            result += 0.5 * ((-1.0) ** parity)[..., None] * (ahead - behind)
            parity += places[3 - d]
        return result

    x = np.zeros_like(residual)
    p = residual.copy()
    for _ in range(iterations):
        image = 0.25 * p - dirac(dirac(p))
        size = np.vdot(residual, residual).real
        step = size / np.vdot(p, image).real
        x = x + step * p
        residual = residual - step * image
        p = residual + np.vdot(residual, residual).real / size * p
    return float(np.vdot(x, x).real), float(np.vdot(residual, residual).real)


def _uniform(random: Generator) -> float:
    return (random.next64() >> 11) * 2.0**-52 - 1.0


def shuffled_reads(pages: int, operations: int, share: int, seed: int) -> str:
    """The line that ``mprotect-bench`` must print."""
    random = Generator(seed)
    modifications = operations * share // 100
    modify = [position < modifications for position in range(operations)]
    for i in range(operations - 1, 0, -1):
        j = random.below(i + 1)
        modify[i], modify[j] = modify[j], modify[i]
    checksum = _Sum()
    checksum.mix(sum((i % pages + 1) % 256 for i in range(operations) if not modify[i]))
    reads = operations - modifications
    return f"modified {modifications} read {reads} checksum {checksum.value:016x}"


def forks(pages: int, count: int) -> str:
    """The line that ``fork-bench`` must print: every fork adds one to the parent's words."""
    checksum = _Sum()
    checksum.mix(pages * (pages - 1) // 2 + count)
    return f"forks {count} checksum {checksum.value:016x}"
