"""Finding registers in memory by values that stand nowhere else."""

from __future__ import annotations

from cosim.debugger.peek import _search, _unusual


def _word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_each_register_is_found_next_to_the_pc() -> None:
    values = {name: _unusual(name, number) for number, name in enumerate(("pc", "satp", "stval"))}
    hart = bytes(64) + _word(values["satp"]) + _word(values["pc"]) + _word(values["stval"])
    # A copy of satp a little further away.
    data = bytes(100_000) + hart + bytes(400) + _word(values["satp"]) + bytes(50_000)
    assert _search(data, values) == {"satp": 100_064, "pc": 100_072, "stval": 100_080}


def test_what_is_elsewhere_is_not_the_hart() -> None:
    values = {"pc": 0x1234_5678_9000, "stval": 0x1234_5678_A000}
    far = bytes(20_000)
    assert _search(_word(values["pc"]) + far + _word(values["stval"]), values) is None
    assert _search(far, values) is None


def test_the_values_are_ones_that_registers_take() -> None:
    assert _unusual("pc", 0) % 8 == 0
    assert _unusual("satp", 1) >> 44 == 8 << 16
