"""The virtual addresses under which a physical page is reached."""

from __future__ import annotations

from cosim.capture.gdb.aliases import Aliases
from hypervisor_model.isa import pte
from tests.cosim.capture.gdb.guest_ram import BASE, at, leaf


def test_aliases_follow_superpages_and_forget_replaced_leaves() -> None:
    aliases = Aliases(pte.W)
    writable = pte.V | pte.R | pte.W
    high = 0xFF00_0000_0000_0000
    assert aliases.learn(at(high, 1), leaf(BASE, writable))
    assert not aliases.learn(at(high, 1), leaf(BASE, writable))
    assert aliases.learn(at(0x5000), leaf(BASE + 0x3000, writable))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000, 0x5000}
    assert aliases.learn(at(0x5000), leaf(BASE + 0x4000, writable))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000}
    assert not aliases.learn(at(0x6000), leaf(BASE + 0x3000, pte.V | pte.R))
    assert aliases.learn(at(0x6000), leaf(BASE + 0x3000, writable | pte.U))
    assert set(aliases.of(BASE + 0x3000)) == {high + 0x3000, 0x6000}
    assert aliases.learn(at(0x5000), 0)
    assert set(aliases.of(BASE + 0x4000)) == {high + 0x4000}


def test_an_address_that_two_tables_map_is_forgotten_with_the_second() -> None:
    aliases = Aliases(pte.W)
    writable = pte.V | pte.R | pte.W
    one, other = at(0x5000), at(0x5000, table=BASE + 0x6000)
    assert aliases.learn(one, leaf(BASE, writable))
    assert not aliases.learn(other, leaf(BASE, writable))
    assert not aliases.learn(one, 0)
    assert set(aliases.of(BASE)) == {0x5000}
    aliases.learn(one, leaf(BASE + 0x1000, writable))
    assert set(aliases.of(BASE)) == {0x5000}, "to another page there"
    aliases.learn(other, 0)
    assert set(aliases.of(BASE)) == set()
    assert set(aliases.of(BASE + 0x1000)) == {0x5000}
