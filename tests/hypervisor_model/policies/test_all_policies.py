"""Choosing, configuring and feeding policies."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor_model import policies
from hypervisor_model.errors import ModelError, UsageError
from hypervisor_model.events import (
    ENVCFG_ADUE,
    ENVCFG_PBMTE,
    EVENT,
    FLAG_STOP,
    FLAG_SUM,
    Access,
    EventBatch,
    Kind,
    Priv,
    PteOp,
    empty,
    fault_pa,
)
from hypervisor_model.exits import Exit
from hypervisor_model.isa.atp import Mode
from hypervisor_model.jit import signed
from hypervisor_model.legality import LegalityTracker
from hypervisor_model.policies import MachineModel, Stream
from hypervisor_model.policies.options import describe, parse
from hypervisor_model.tlb import Replacement, TlbConfig
from tests.hypervisor_model.guests import PAGE, A, D, Guest, R, V, W, leaf

VA = 0x4000_0000
MACHINE = MachineModel(ram_size=64 << 20)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lazy", "no policy is called 'lazy'; there are native, nested, shadow, lsp"),
        ("shadow:fil=whole", "policy shadow has no option 'fil'; it knows fill, roots"),
        ("native:fill=whole", "policy native has no option 'fill'; it has none"),
        ("shadow:fill=all", "policy shadow: fill is demand or whole, not 'all'"),
        ("lsp:roots=0", "policy lsp: roots is all or switch or a number from 1, not '0'"),
        ("lsp:roots=1_0", "policy lsp: roots is all or switch or a number from 1, not '1_0'"),
        ("lsp:fast_path=yes", "policy lsp: fast_path is on or off, not 'yes'"),
        ("lsp:fast_path", "policy lsp: option fast_path needs a value"),
        ("oos:tables=1,tables=2", "policy oos: option tables is given twice"),
        ("oos:tables=-1", "policy oos: tables is a number from 1, not '-1'"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(spec: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        policies.make(spec, MACHINE)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", policies.POLICIES)
def test_options_read_as_they_are_described(name: str) -> None:
    kind = policies.POLICIES[name]
    assert kind.name == name
    options = kind.options
    default = options()
    assert parse(name, options, describe(default)) == default
    assert len([pair for pair in describe(default).split(",") if pair]) == len(fields(options))
    documented = policies.documentation(options)
    assert describe(default) == ",".join(f"{one.name}={one.default}" for one in documented)
    assert all(one.values and one.doc for one in documented)


def test_machines_pass_through_json() -> None:
    machine = MachineModel(
        ram_base=0x4000_0000,
        harts=2,
        svadu=True,
        setup="base",
        tlb=TlbConfig((2, 2), None, None, Replacement.RANDOM, 7),
        gstage_mode=Mode.SV57,
        gstage_page=2 << 20,
    )
    assert MachineModel.from_json(json.loads(json.dumps(machine.to_json()))) == machine
    assert MachineModel.from_json({}) == MachineModel()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ram_base", 0x8000_0001),
        ("ram_size", 0),
        ("ram_size", "512M"),
        ("harts", 0),
        ("harts", True),
        ("setup", "vs"),
        ("gstage_mode", "bare"),
        ("gstage_mode", "sv32"),
        ("gstage_page", 8192),
        ("footprint_data", -1),
        ("footprint_code", 1 << 62),
        ("walk_cache_ways", -1),
        ("walk_cache_ways", 1 << 40),
        ("tlb", 3),
        ("tlb", {"data": None}),
        ("tlb", {"data": [1, True]}),
        ("tlb", {"data": [0, 4]}),
        ("tlb", {"second": [1 << 30, 1 << 30]}),
        ("tlb", {"second": [16, 3], "replacement": "plru"}),
        ("tlb", {"superpages": "no"}),
        ("tlb", {"replacement": "fifo"}),
        ("tlb", {"seed": 1.5}),
        ("tlb", {"data": [1, 2], "ways": 3}),
        ("tlb", {"data": [1]}),
        ("color", "red"),
    ],
)
def test_impossible_machines_are_refused(field: str, value: object) -> None:
    with pytest.raises(ModelError, match=r"^machine: .*" + field.partition("_")[0]):
        MachineModel.from_json({field: value})


@pytest.mark.parametrize(
    ("fields_", "says"),
    [
        ({"harts": "2"}, "harts cannot be '2', it is a whole number"),
        ({"svadu": 1}, "svadu cannot be 1, it is true or false"),
        ({"setup": 1}, "setup cannot be 1, it is a text"),
        ({"tlb": {"seed": 1.5}}, "tlb.seed cannot be 1.5, it is a whole number"),
    ],
)
def test_a_value_of_another_type_is_told_what_it_should_be(
    fields_: dict[str, object], says: str
) -> None:
    with pytest.raises(ModelError, match=f"^machine: {re.escape(says)}$"):
        MachineModel.from_json(fields_)


@pytest.mark.parametrize("name", policies.POLICIES)
def test_what_no_kernel_must_see_is_refused(name: str) -> None:
    policy = policies.make(name, MACHINE)
    with pytest.raises(ModelError, match="EVENT"):
        policy.feed(np.zeros(3, np.int64))
    hart = empty(1)
    hart["hart"] = 1
    with pytest.raises(ModelError, match="an event of hart 1, but the machine has 1"):
        policy.feed(hart)
    reserved = empty(1)
    reserved["kind"] = Kind.SATP_WRITE
    reserved["b"] = signed(11 << 60)
    with pytest.raises(ModelError, match="satp 0xb000000000000000 has a reserved MODE"):
        policy.feed(reserved)


def busy_guest(seed: int) -> EventBatch:
    """Two spaces with tables in common, and every kind of event; well-behaved or not."""
    random = np.random.default_rng(seed)
    guest = Guest(svadu=bool(seed % 2))
    roots = [guest.page(), guest.page()]
    frames = [guest.page() for _ in range(8)]
    guest.load(roots[0], 1)
    guest.map(roots[0], VA, frames[0])
    for _ in range(150):
        action = random.integers(0, 12)
        va = VA + PAGE * int(random.integers(0, 12)) + (int(random.integers(0, 2)) << 21)
        root = roots[int(random.integers(0, 2))]
        perm = int(random.choice([0xCF, 0xC7, 0x07, 0x43, 0xD7]))
        if action < 3:
            guest.map(root, va, frames[int(random.integers(0, 8))], perm)
        elif action == 3:
            guest.store(guest.entry(root, va), 0)
        elif action == 4:
            guest.store(root + 16, guest.words[roots[0] + 8])
        elif action == 5:
            guest.load(root, int(random.integers(1, 3)))
        elif action == 6:
            guest.fence([None, va][random.integers(0, 2)], [None, 1, 2][random.integers(0, 3)])
        elif action == 7:
            guest.page_fault(va, 13)
        else:
            guest.access(va, random.choice([0, 1, 2]), priv=Priv(int(random.integers(0, 2))))
    return guest.batch()


def careful_guest(mode: Mode, seed: int, svadu: bool) -> tuple[Guest, EventBatch]:
    """Three spaces that share tables and pages of all kinds; every store is fenced at once."""
    random = np.random.default_rng(seed)
    guest = Guest(mode=mode, svadu=svadu)
    roots = [guest.page() for _ in range(3)]
    frames = [guest.page() for _ in range(6)]
    top = 12 + 9 * (mode.levels - 1)
    regions = [0, 1 << 21, 1 << top, 1 << 21 | 1 << top]
    vas = [
        VA + PAGE * int(random.integers(0, 40)) + regions[random.integers(0, 4)] for _ in range(10)
    ]
    guest.load(roots[0], 1)
    for _ in range(120):
        action = random.random()
        va = vas[random.integers(0, len(vas))]
        of = int(random.integers(0, 3))
        if action < 0.3:
            perm = int(random.choice([0xCF, 0xC7, 0xDF, 0xD7, 0xC3, 0xCB, 0xC9, 0xD9]))
            perm &= ~int(random.choice([0, 0, 0xC0, 0x80]))
            guest.map(roots[of], va, frames[random.integers(0, 6)], perm)
            guest.fence(va)
        elif action < 0.4:
            guest.store(guest.entry(roots[of], va), 0)
            guest.fence([None, va][random.integers(0, 2)])
        elif action < 0.45:
            index = 8 * (va >> top & 511)
            guest.store(roots[of] + index, guest.words[roots[random.integers(0, 3)] + index])
            guest.fence()
        elif action < 0.55:
            guest.load(roots[of], of + 1)
        else:
            kind, priv = Access(int(random.integers(0, 3))), Priv(int(random.integers(0, 2)))
            guest.access(va + 8, kind, priv=priv, flags=[0, FLAG_SUM][random.integers(0, 2)])
    return guest, guest.batch()


IN_EVERY_WAY = (
    *policies.POLICIES,
    "shadow:fill=whole",
    "shadow:roots=1",
    "lsp:fence_global=drop",
    "lsp:links=fence",
    "unsync:flood=1,prefetch=64",
    "oos:tables=1",
    "ssp:root_buffer=1",
)


@pytest.mark.parametrize("mode", [Mode.SV39, Mode.SV48, Mode.SV57])
def test_a_guest_that_fences_sees_its_tables_as_they_are(mode: Mode) -> None:
    for seed in range(8):
        svadu = bool(seed % 2)
        guest, batch = careful_guest(mode, seed, svadu)
        is_access = batch["kind"] == Kind.ACCESS
        for setup in ("h", "base"):
            fields_ = {"ram_size": guest.size, "svadu": svadu, "setup": setup}
            cached = {"walk_cache_ways": seed % 3, "gstage_mode": mode.name.lower()}
            machine = MachineModel.from_json({**fields_, **cached})
            for spec in IN_EVERY_WAY:
                answers = policies.make(spec, machine).feed(batch)
                assert (answers == batch["b"])[is_access].all(), (spec, setup, seed)


def test_memory_types_pass_through_where_the_machine_has_them() -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root)
    frame = guest.page()
    guest.store(guest.entry(root, VA), leaf(frame) | 2 << 61)
    guest.access(VA)
    for name in policies.POLICIES:
        for svpbmt, answer in ((True, frame), (False, -14)):
            machine = MachineModel(ram_size=guest.size, svpbmt=svpbmt)
            assert policies.make(name, machine).feed(guest.batch())[-1] == answer, name


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 400), max_size=6))
def test_batches_of_any_size_give_equal_results(seed: int, cuts: list[int]) -> None:
    batch = busy_guest(seed)
    for setup in ("h", "base"):
        fields_ = {**MACHINE.to_json(), "svadu": bool(seed % 2), "setup": setup}
        for name in policies.POLICIES:
            machine = MachineModel.from_json(fields_)
            whole, parts = (policies.make(name, machine) for _ in range(2))
            expected = whole.feed(batch)
            pieces = np.split(batch, sorted(cuts))
            answers = np.concatenate([parts.feed(piece) for piece in pieces])
            assert (answers == expected).all()
            assert parts.result().to_json() == whole.result().to_json()


@settings(max_examples=4)
@given(st.integers(0, 10_000))
def test_the_exits_and_misses_of_each_event_are_told(seed: int) -> None:
    """Against a model that gets one event at a time, and its totals after each."""
    batch = busy_guest(seed)
    for setup in ("h", "base"):
        machine = MachineModel.from_json({**MACHINE.to_json(), "setup": setup})
        for name in policies.POLICIES:
            whole, single = (policies.make(name, machine) for _ in range(2))
            whole.feed(batch)
            totals: list[tuple[int, int]] = [(0, 0)]
            for index in range(len(batch)):
                single.feed(batch[index : index + 1])
                counted = single.result()
                assert counted.tlb_misses is not None
                totals.append((counted.at_least, counted.tlb_misses))
            taken = np.stack([whole.exits_taken, whole.misses_taken], axis=1)
            assert taken.tolist() == np.diff(totals, axis=0).tolist(), name


def test_pools_grow_as_tables_are_shadowed() -> None:
    guest = Guest(size=1 << 30)
    root = guest.page()
    guest.load(root)
    for i in range(300):
        guest.map(root, VA + (i << 21), guest.page())
        guest.access(VA + (i << 21))
    for spec in ("shadow", "shadow:fill=whole", "lsp"):
        policy = policies.make(spec, MachineModel(ram_size=guest.size))
        batch = guest.batch()
        answers = policy.feed(batch)
        is_access = batch["kind"] == Kind.ACCESS
        assert (answers[is_access] == batch["b"][is_access]).all()


@pytest.mark.parametrize("name", policies.POLICIES)
def test_samples_are_not_counted(name: str) -> None:
    guest = Guest()
    root = guest.page()
    guest.load(root)
    frame = guest.page()
    where = guest.map(root, VA, frame)
    policy = policies.make(name, MACHINE)
    policy.feed(guest.take())
    before = policy.result().to_json()
    guest.access(VA, flags=FLAG_STOP)
    guest.access(VA + PAGE, flags=FLAG_STOP)
    assert list(policy.feed(guest.take())) == [frame, -14]
    assert policy.result().to_json() == before
    guest.access(VA)
    guest.store(where, leaf(guest.page()))
    guest.access(VA, flags=FLAG_STOP)
    assert policy.feed(guest.take())[-1] == frame, "a sample sees what the TLB still holds"


def test_results_are_json() -> None:
    policy = policies.make("lsp", MACHINE, Stream("none", page_faults=False))
    policy.feed(busy_guest(2))
    document = json.loads(json.dumps(policy.result().to_json()))
    assert document["exits"]["total"] is None
    assert document["exits"]["shadow_fill"] is None
    assert document["exits"]["guest_fault"] is None
    counted = sum(document["exits"][key] for key in ("fence", "fence_fast", "fence_global"))
    assert document["exits"]["at_least"] == counted + document["exits"]["satp_write"] > 0
    assert document["sinval"] == 0
    for key, value in document.items():
        if value is None:
            assert document["reasons"][key]


def test_a_complete_stream_has_no_null_but_walk_caches() -> None:
    for name in policies.POLICIES:
        document = policies.make(name, MACHINE).result().to_json()
        nulls = {key for key, value in document.items() if value is None}
        assert nulls == {"walk_cache_hits"}
        assert None not in document["exits"].values()
        assert set(document["reasons"]) == nulls


def test_walk_caches_save_references_and_change_no_answer() -> None:
    batch = busy_guest(4)
    for name in policies.POLICIES:
        plain = policies.make(name, MACHINE)
        cached = policies.make(
            name, MachineModel.from_json({**MACHINE.to_json(), "walk_cache_ways": 4})
        )
        assert (plain.feed(batch) == cached.feed(batch)).all()
        one, two = plain.result(), cached.result()
        assert one.walk_refs and two.walk_refs and two.walk_cache_hits
        assert sum(two.walk_refs.values()) < sum(one.walk_refs.values())
        assert one.exits == two.exits
        assert one.tlb_misses == two.tlb_misses


def test_exit_names_are_those_of_the_definitions() -> None:
    assert [kind.key for kind in Exit] == [
        "pt_write",
        "fence",
        "fence_fast",
        "fence_global",
        "satp_write",
        "shadow_fill",
        "dirty_fill",
        "guest_fault",
        "gstage_fault",
        "remote_fence",
    ]


def test_events_outside_ram_change_nothing() -> None:
    batch = np.zeros(4, EVENT)
    batch["kind"] = [Kind.TABLE_ADD, Kind.TABLE_ENTRY, Kind.PTE_WRITE, Kind.TABLE_DROP]
    batch["a"] = [0x1000, -8, 1 << 55, 0x7FFF_F000]
    for name in policies.POLICIES:
        policy = policies.make(name, MACHINE)
        policy.feed(batch)
        assert policy.result().at_least == 0


@pytest.mark.parametrize("name", policies.POLICIES)
def test_untranslated_addresses_above_the_physical_ones_are_access_faults(name: str) -> None:
    """In Bare and in M-mode; every policy and the tracker say the same, and no exit is taken."""
    batch = empty(8)
    batch["kind"] = Kind.ACCESS
    batch["a"] = [1 << 56, -4096, MACHINE.ram_base | 1 << 62, (1 << 56) - 8] * 2
    batch["sub"] = [Access.READ, Access.WRITE, Access.FETCH, Access.READ] * 2
    batch["priv"] = [Priv.S] * 4 + [Priv.M] * 4
    policy = policies.make(name, MACHINE)
    answers = policy.feed(batch)
    last = answers[3]
    assert list(answers[:3]) == list(answers[4:7]) == [fault_pa(5), fault_pa(7), fault_pa(1)]
    assert last == answers[7] == (1 << 56) - 8
    assert policy.result().at_least == 0
    tracker = LegalityTracker(MACHINE, [name, "wrong"])
    tracker.feed(batch, np.array([answers, batch["a"]]))
    assert (tracker.counts[name].fresh, tracker.counts["wrong"].illegal) == (8, 6)


@pytest.mark.parametrize("name", policies.POLICIES)
@pytest.mark.parametrize(
    ("bit", "bits"),
    [(ENVCFG_ADUE, 0), (ENVCFG_PBMTE, A | D | 1 << 61)],
    ids=["ADUE", "PBMTE"],
)
def test_a_switched_feature_decides_every_walk_after_the_fence(
    name: str, bit: int, bits: int
) -> None:
    guest = Guest(mode=Mode.SV39)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), V | R | W | bits)
    entry = guest.entry(root, VA)
    page = guest.words[entry] >> 10 << 12 & (1 << 44) - 1
    policy = policies.make(name, MACHINE)
    policy.feed(guest.take())

    def ask() -> int:
        guest.fence()
        guest.access(VA, Access.WRITE)
        return int(policy.feed(guest.take())[-1])

    def switch(value: int, switches: int) -> None:
        event = empty(1)
        event["kind"], event["b"], event["c"] = Kind.ENVCFG_WRITE, value, switches
        policy.feed(event)

    assert ask() == fault_pa(15)
    switch(bit, 0)
    assert ask() == fault_pa(15), "this machine cannot switch it"
    switch(bit, bit)
    assert ask() == page
    switch(0, bit)
    # With ADUE every policy has set A and D in its copy, as the machine has in its own.
    assert ask() == (page if bit == ENVCFG_ADUE else fault_pa(15))


@pytest.mark.parametrize("name", policies.POLICIES)
def test_what_the_mmu_sets_is_no_store(name: str) -> None:
    guest = Guest(mode=Mode.SV39)
    root = guest.page()
    guest.load(root)
    guest.map(root, VA, guest.page(), V | R | W)
    policy = policies.make(name, MACHINE)
    guest.fence()
    guest.access(VA)
    policy.feed(guest.take())
    before = policy.result().exits
    entry = guest.entry(root, VA)
    guest.store(entry, guest.words[entry] | A | D, PteOp.HARDWARE_AD)
    policy.feed(guest.take())
    assert policy.result().exits == before
    # Svade as the machine is, the next access finds A and D set.
    guest.fence()
    page = guest.words[entry] >> 10 << 12
    guest.access(VA, Access.WRITE)
    assert policy.feed(guest.take())[-1] == page
