"""What the workload python3 runs: objects, dictionaries, strings, sorting.

Usage: python_script.py SIZE.  Prints one check sum, which depends on SIZE alone.
"""

from __future__ import annotations

import sys

MODULUS = (1 << 61) - 1


def tree(depth: int, key: int) -> tuple[object, int, object] | None:
    """A full binary tree of tuples (left, key, right)."""
    if depth == 0:
        return None
    return tree(depth - 1, key * 2), key, tree(depth - 1, key * 2 + 1)


def keys(node: object) -> list[int]:
    """The keys of a tree, in order, found without recursion."""
    found: list[int] = []
    stack: list[tuple[object, int, object]] = []
    while stack or node:
        while isinstance(node, tuple):
            stack.append(node)
            node = node[0]
        top = stack.pop()
        found.append(top[1])
        node = top[2]
    return found


def run(size: int) -> int:
    """Words counted in a dictionary and sorted, a tree built and read, all folded together."""
    state = 1
    counts: dict[str, int] = {}
    for _ in range(size):
        state = state * 48271 % 2147483647
        word = f"word {state % (size // 4 + 1)}"
        counts[word] = counts.get(word, 0) + 1
    total = 0
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        total = (total * 31 + count * len(word)) % MODULUS
    for key in keys(tree(size.bit_length() - 1, 1)):
        total = (total * 31 + key) % MODULUS
    return total


if __name__ == "__main__":
    print(f"{run(int(sys.argv[1])):016x}")
