"""Translation look-aside buffers: tagged, set-associative, one or two levels, all page sizes.

A :class:`Tlb` is array state for kernels, made by :func:`make` from a :class:`TlbConfig`.  Entries
are tagged with ASID and VMID and carry the global bit; VMID -1 means "no guest" (V=0, or a machine
without the H extension).  An entry caches the combined translation of both stages and remembers
the page size of either, because a fence names a *leaf entry*: it must remove every fragment of a
superpage that the other stage broke up.

Ours: the first level holds 4 KiB translations, of a superpage the fragments used, as many cores
do (``TlbConfig.superpages``: whole pages of any size); the second level holds whole pages.

A fence removes exactly what the specification says must go ("SFENCE.VMA", "Hypervisor
Memory-Management Fence Instructions", "Svinval"), so that a forgotten fence shows.

Ours: an entry that does not permit an access, or lacks the A or D bit the access needs, is a miss
(the walk decides), as the specification allows and most cores do for D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervisor_model.errors import ModelError
from hypervisor_model.events import FLAG_MXR, Access, Fence, Priv
from hypervisor_model.isa import pte
from hypervisor_model.jit import inlined, kernel, record_of
from hypervisor_model.walk import BARE_BITS, HLVX, HS_MXR, OK, Walk, allows
from hypervisor_model.walk_cache import G_STAGE, VS_STAGE, WalkCache
from hypervisor_model.walk_cache import invalidate as _invalidate_tables

LARGEST = 1 << 20
"""Entries that a buffer can have (ours: a thousand times what cores have)."""

NO_GUEST = -1
"""VMID of translations made with V=0."""
NO_TABLES = -1
"""ASID of translations made with a Bare first stage: no fence or ASID concerns them."""
HYPERVISOR = -3
"""VMID of the hypervisor's own entries (:func:`displace`); no fence of a guest reaches them."""

PAGE_BITS = (12, 21, 16, 30, 39, 48)
"""log2 of the page sizes an entry can have, the frequent ones first."""

DATA, FETCH, SECOND = range(3)
"""Rows of ``Tlb.buffers``: the first-level buffers and the second level."""

_ENTRY = record_of(
    "last_use",
    "va",
    "bits",
    "asid",
    "vmid",
    "perm",
    "pa",
    "gpa",
    "vs_bits",
    "g_bits",
    "g_perm",
)
"""An entry: the time of its last use (0: the place is empty); its first virtual address and log2 of
its size; what it is tagged with; the permissions of the first-stage leaf; the first physical and
guest-physical address (-1: no G-stage table was used); log2 of the page size of either stage; the
permissions of the G-stage leaf."""

_BUFFER = record_of("first", "sets", "ways", "first_set")
"""A buffer: the row of its first entry in ``Tlb.entries``; its sets and ways (0: there is no such
buffer); the row of its first set in ``Tlb.trees``."""

_STATE = record_of("clock", "random", "replacement", "superpages")
"""The time; the state of random replacement; the :class:`Replacement`; 1 if the first level holds
superpages."""

_COUNTS = record_of("hits_data", "hits_fetch", "hits_second", "misses", "displaced")
"""Hits by buffer, misses, and guest entries displaced by the hypervisor."""

_SUPERPAGES = 64
_DIGESTS = 1024
_FIRST_LEVEL, _SECOND_LEVEL = 1, 2
"""Rows and columns of ``Tlb.population``."""

_OLDEST = 1
"""``last_use`` of the hypervisor's entries: the clock gives guests' entries only later ones."""
_ACCESS_WRITE = int(Access.WRITE)
_ACCESS_FETCH = int(Access.FETCH)
_PRIV = 3
_USER = int(Priv.U)
_FORM_VA = int(Fence.VA)
_FORM_ASID = int(Fence.ASID)
_FORM = int(Fence.FORM)
_HFENCE_GVMA = int(Fence.HFENCE_GVMA)
_HINVAL_GVMA = int(Fence.HINVAL_GVMA)


class Replacement(IntEnum):
    """Which entry of a full set goes."""

    LRU = 0
    PLRU = 1
    """Tree pseudo-LRU; the ways must be a power of two, at most 64."""
    RANDOM = 2


_LRU = int(Replacement.LRU)
_PLRU = int(Replacement.PLRU)
_RANDOM = int(Replacement.RANDOM)


@dataclass(frozen=True)
class TlbConfig:
    """Shape of a TLB; each buffer is (sets, ways), any numbers.

    The default is an application core: 2 x 128 entries and 1,024 behind them (ours).

    :raises ModelError: when a buffer has no entries or too many, or PLRU cannot have that many
        ways.
    """

    data: tuple[int, int] = (64, 2)
    """First level for loads and stores; for everything if ``fetch`` is None."""
    fetch: tuple[int, int] | None = (64, 2)
    """First level for instructions, or None for a unified first level."""
    second: tuple[int, int] | None = (128, 8)
    """Unified second level, or None."""
    replacement: Replacement = Replacement.LRU
    seed: int = 1
    """Seed of RANDOM replacement."""
    superpages: bool = False
    """True if the first level holds whole superpages; otherwise 4 KiB fragments of them."""

    def __post_init__(self) -> None:
        for shape in (self.data, self.fetch, self.second):
            if shape is None:
                continue
            sets, ways = shape
            if sets < 1 or ways < 1:
                raise ModelError(f"a TLB of {sets} sets and {ways} ways holds nothing")
            if sets * ways > LARGEST:
                raise ModelError(f"a TLB of {sets} sets and {ways} ways has more than {LARGEST:,}")
            if self.replacement is Replacement.PLRU and (ways & (ways - 1) or ways > 64):
                raise ModelError(f"PLRU needs a power of two up to 64 as ways, not {ways}")


def largest_filter(config: TlbConfig, data: int, code: int) -> int:
    """Slots of the largest access filter through which a TLB has the same misses; 0: of none.

    A filter of so many direct-mapped pages for data, and as many for code, drops an access to the
    page that its slot holds.  If the sets of a first-level buffer are a multiple of the slots,
    no other page of the same set was used since, so the access hits the set's most recent entry
    and changes no order of use.  That is still there after exits that touch ``data`` and ``code``
    pages if their share of a set is smaller than the set (:func:`displace`).  Superpages lie in
    sets that their slots do not tell, so they need a single slot: then an access is dropped only
    right after another to its page.  A unified first level has pages of code and of data in one
    set, and no filter knows which of them was used last.
    """
    if config.fetch is None:
        return 0
    for (sets, ways), pages in ((config.data, data), (config.fetch, code)):
        if ways <= -(-pages // sets):
            return 0
    sets = 1 if config.superpages else math.gcd(config.data[0], config.fetch[0])
    # The largest power of two in it, as filters have.
    return sets & -sets


def misses_through(config: TlbConfig, slots: int, data: int, code: int) -> bool:
    """Return True if a filter of ``slots`` in front of a TLB leaves its misses as they are.

    ``slots``, a power of two, may be any up to :func:`largest_filter`; 0: nothing was dropped.
    """
    return slots <= largest_filter(config, data, code)


class Tlb(NamedTuple):
    """State inside kernels.

    Arrays with a single record stand for the record, which numba cannot return in a tuple.
    """

    entries: NDArray[Any]
    """Entries of all buffers; see :data:`_ENTRY`."""
    buffers: NDArray[Any]
    """By DATA, FETCH and SECOND; see :data:`_BUFFER`."""
    trees: NDArray[np.int64]
    """PLRU bits of each set."""
    population: NDArray[np.int64]
    """Entries of each page size (index = log2) in row 0.  In the rows behind, one for each level,
    entries that are fragments of first-stage superpages: of each size, and from index
    :data:`_SUPERPAGES` on by a digest of the superpage."""
    state: NDArray[Any]
    """One record; see :data:`_STATE`."""
    counts: NDArray[Any]
    """One record; see :data:`_COUNTS`."""


def make(config: TlbConfig | None = None) -> Tlb:
    """Return an empty TLB."""
    config = config or TlbConfig()
    buffers = np.zeros(3, _BUFFER)
    entries = sets_total = 0
    for row, shape in ((DATA, config.data), (FETCH, config.fetch), (SECOND, config.second)):
        if shape is None:
            continue
        sets, ways = shape
        buffers[row] = (entries, sets, ways, sets_total)
        entries += sets * ways
        sets_total += sets
    if config.fetch is None:
        buffers[FETCH] = buffers[DATA]
    state = np.zeros(1, _STATE)
    state["clock"] = _OLDEST
    state["superpages"] = config.superpages
    # xorshift cannot leave zero; an odd multiplier spreads small seeds.
    state["random"] = ((config.seed * 0x9E3779B97F4A7C15) & ((1 << 62) - 1)) or 1
    state["replacement"] = config.replacement
    return Tlb(
        entries=np.zeros(entries, _ENTRY),
        buffers=buffers,
        trees=np.zeros(sets_total, np.int64),
        population=np.zeros((3, _SUPERPAGES + _DIGESTS), np.int64),
        state=state,
        counts=np.zeros(1, _COUNTS),
    )


@kernel
def _set_of(tlb: Tlb, buffer: int, va: int, bits: int) -> int:
    sets = tlb.buffers[buffer].sets
    if sets & (sets - 1) == 0:
        return (va >> bits) & (sets - 1)  # type: ignore[no-any-return]
    return (va >> bits) % sets  # type: ignore[no-any-return]


@kernel
def _holds_superpages(tlb: Tlb, buffer: int) -> bool:
    return buffer == SECOND or tlb.state[0].superpages != 0


@kernel
def _find(tlb: Tlb, buffer: int, va: int, asid: int, vmid: int) -> int:
    """Return the row of a buffer's entry for ``va`` in an address space, or -1."""
    ways = tlb.buffers[buffer].ways
    if ways == 0:
        return -1
    # Global mappings belong to every address space; if the first stage is Bare there is none.
    either = 0 if asid == NO_TABLES else pte.G
    for bits in PAGE_BITS:
        if bits != pte.PAGE_BITS and not _holds_superpages(tlb, buffer):
            break
        if tlb.population[0, bits] == 0:
            continue
        first = va >> bits << bits
        row = tlb.buffers[buffer].first + _set_of(tlb, buffer, va, bits) * ways
        for i in range(row, row + ways):
            entry = tlb.entries[i]
            if (
                entry.va == first
                and entry.last_use != 0
                and entry.bits == bits
                and entry.vmid == vmid
                and (entry.asid == asid or entry.perm & either)
            ):
                return i
    return -1


@kernel
def _touch(tlb: Tlb, buffer: int, row: int) -> None:
    """Note a use of an entry for the replacement."""
    tlb.state[0].clock += 1
    tlb.entries[row].last_use = tlb.state[0].clock
    if tlb.state[0].replacement == _PLRU:
        ways = tlb.buffers[buffer].ways
        place = row - tlb.buffers[buffer].first
        at = tlb.buffers[buffer].first_set + place // ways
        way = place % ways
        # Node n has the children 2n and 2n+1; a set bit says that the older half is the right.
        tree = tlb.trees[at]
        node = 1
        half = ways >> 1
        while half:
            if way & half:
                tree &= ~(1 << (node & 63))
                node = 2 * node + 1
            else:
                tree |= 1 << (node & 63)
                node = 2 * node
            half >>= 1
        tlb.trees[at] = tree


@kernel
def _victim(tlb: Tlb, buffer: int, index: int) -> int:
    """Return the row to fill in a set: an empty one, else the one that the replacement gives up."""
    ways = tlb.buffers[buffer].ways
    first = tlb.buffers[buffer].first + index * ways
    oldest = first
    for row in range(first, first + ways):
        if tlb.entries[row].last_use == 0:
            return row
        if tlb.entries[row].last_use < tlb.entries[oldest].last_use:
            oldest = row
    if tlb.state[0].replacement == _LRU:
        return oldest  # type: ignore[no-any-return]
    if tlb.state[0].replacement == _RANDOM:
        x = tlb.state[0].random
        x ^= (x << 13) & 0x3FFFFFFFFFFFFFFF
        x ^= x >> 7
        x ^= (x << 17) & 0x3FFFFFFFFFFFFFFF
        tlb.state[0].random = x
        return first + x % ways  # type: ignore[no-any-return]
    tree = tlb.trees[tlb.buffers[buffer].first_set + index]
    node = 1
    while node < ways:
        node = 2 * node + ((tree >> (node & 63)) & 1)
    return first + node - ways  # type: ignore[no-any-return]


@kernel
def _stalest(tlb: Tlb, buffer: int, index: int) -> int:
    """Return the row of a set for an entry of the hypervisor.

    It is an empty one, or else that of the guest's entry whose last use is longest ago.
    """
    ways = tlb.buffers[buffer].ways
    first = tlb.buffers[buffer].first + index * ways
    oldest = first
    for row in range(first, first + ways):
        if tlb.entries[row].last_use == 0:
            return row
        ours = tlb.entries[row].last_use == _OLDEST
        older = tlb.entries[row].last_use < tlb.entries[oldest].last_use
        if not ours and (older or tlb.entries[oldest].last_use == _OLDEST):
            oldest = row
    return oldest  # type: ignore[no-any-return]


@kernel
def _digest(va: int, bits: int) -> int:
    """Return the column of ``Tlb.population`` for the superpage of an address."""
    return _SUPERPAGES + ((va >> bits) & (_DIGESTS - 1))


@kernel
def _may_have_fragments(tlb: Tlb, buffer: int, va: int) -> bool:
    """Return False if the level of a buffer holds no fragment of a superpage that has ``va``."""
    level = _SECOND_LEVEL if buffer == SECOND else _FIRST_LEVEL
    for bits in PAGE_BITS:
        if tlb.population[level, bits] and tlb.population[level, _digest(va, bits)]:
            return True
    return False


@kernel
def _count_fragment(tlb: Tlb, row: int, change: int) -> None:
    """Add to the fragments of the level that a row belongs to."""
    second = tlb.buffers[SECOND]
    level = _SECOND_LEVEL if second.ways != 0 and row >= second.first else _FIRST_LEVEL
    entry = tlb.entries[row]
    tlb.population[level, entry.vs_bits] += change
    tlb.population[level, _digest(entry.va, entry.vs_bits)] += change


@kernel
def _drop(tlb: Tlb, row: int) -> None:
    entry = tlb.entries[row]
    entry.last_use = 0
    tlb.population[0, entry.bits] -= 1
    if entry.vs_bits > entry.bits:
        _count_fragment(tlb, row, -1)


@kernel
def _place(tlb: Tlb, buffer: int, va: int, bits: int, vmid: int) -> int:
    """Make room for an entry and return its row; the caller writes all other fields."""
    index = _set_of(tlb, buffer, va, bits)
    if vmid == HYPERVISOR:
        row = _stalest(tlb, buffer, index)
    else:
        row = _victim(tlb, buffer, index)
    entry = tlb.entries[row]
    if entry.last_use != 0:
        if vmid == HYPERVISOR and entry.vmid != HYPERVISOR:
            tlb.counts[0].displaced += 1
        _drop(tlb, row)
    tlb.population[0, bits] += 1
    if vmid == HYPERVISOR:
        entry.last_use = _OLDEST
    else:
        _touch(tlb, buffer, row)
    entry.va = va >> bits << bits
    entry.bits = bits
    entry.vmid = vmid
    return row


@kernel
def _permits(tlb: Tlb, row: int, access: int, priv: int, flags: int) -> bool:
    entry = tlb.entries[row]
    perm, g_perm = entry.perm, entry.g_perm
    needed = pte.A | pte.D if access == _ACCESS_WRITE else pte.A
    if perm & g_perm & needed != needed:
        return False
    g_flags = flags & HLVX
    if flags & HS_MXR:
        flags |= FLAG_MXR
        g_flags |= FLAG_MXR
    # A Bare first stage has no permissions to check; its entry may belong to any privilege.
    has_tables = entry.vs_bits != BARE_BITS
    if has_tables and not allows(perm, access, priv & _PRIV, flags):
        return False
    return allows(g_perm, access, _USER, g_flags)


@kernel
def _copy(tlb: Tlb, source: int, buffer: int, va: int) -> int:
    """Put a second-level entry, or the page of ``va`` out of it, into the first level."""
    entry = tlb.entries[source]
    bits = entry.bits if _holds_superpages(tlb, buffer) else pte.PAGE_BITS
    row = _place(tlb, buffer, va, bits, entry.vmid)
    copy = tlb.entries[row]
    offset = copy.va - entry.va
    copy.asid = entry.asid
    copy.perm = entry.perm
    copy.pa = entry.pa + offset
    copy.gpa = entry.gpa + offset if entry.gpa >= 0 else -1
    copy.vs_bits = entry.vs_bits
    copy.g_bits = entry.g_bits
    copy.g_perm = entry.g_perm
    if entry.vs_bits > bits:
        _count_fragment(tlb, row, 1)
    return row


@kernel
def probe(tlb: Tlb, va: int, asid: int, vmid: int, access: int, priv: int, flags: int) -> int:
    """As :func:`lookup`, but changes nothing: no count, no use noted, nothing moved."""
    row = _find(tlb, FETCH if access == _ACCESS_FETCH else DATA, va, asid, vmid)
    if row < 0:
        row = _find(tlb, SECOND, va, asid, vmid)
    if row >= 0 and _permits(tlb, row, access, priv, flags):
        return row
    return -1


@inlined
def lookup(tlb: Tlb, va: int, asid: int, vmid: int, access: int, priv: int, flags: int) -> int:
    """Return the row of the entry that translates and permits an access, or -1.

    Hits and misses are counted.  An entry found in the second level is copied into the first.
    ``asid`` and ``vmid`` name the address space (ASID NO_TABLES: the first stage is Bare; VMID
    NO_GUEST: V=0).  ``access``, ``priv`` and ``flags`` are as for
    :func:`hypervisor_model.walk.walk1`.
    """
    buffer = FETCH if access == _ACCESS_FETCH else DATA
    row = _find(tlb, buffer, va, asid, vmid)
    if row >= 0:
        if not _permits(tlb, row, access, priv, flags):
            tlb.counts[0].misses += 1
            return -1
        if access == _ACCESS_FETCH:
            tlb.counts[0].hits_fetch += 1
        else:
            tlb.counts[0].hits_data += 1
        _touch(tlb, buffer, row)
        return row
    row = _find(tlb, SECOND, va, asid, vmid)
    if row < 0 or not _permits(tlb, row, access, priv, flags):
        tlb.counts[0].misses += 1
        return -1
    tlb.counts[0].hits_second += 1
    _touch(tlb, SECOND, row)
    return _copy(tlb, row, buffer, va)


@kernel
def pa_of(tlb: Tlb, row: int, va: int) -> int:
    """Return the physical address that entry ``row`` translates ``va`` to."""
    entry = tlb.entries[row]
    return entry.pa + (va - entry.va)  # type: ignore[no-any-return]


@kernel
def fill(tlb: Tlb, va: int, asid: int, vmid: int, access: int, walk: Walk) -> int:
    """Cache a walk's translation of ``va`` in the first level of its kind and in the second.

    Replaces what these held for ``va`` in the same address space.  A faulting walk and one that
    no table limits (Bare) are not cached.  Returns the row in the first level, or -1.
    """
    if walk.cause != OK or walk.page_bits == BARE_BITS:
        return -1
    placed = -1
    for buffer in (SECOND, FETCH if access == _ACCESS_FETCH else DATA):
        if tlb.buffers[buffer].ways == 0:
            continue
        row = _find(tlb, buffer, va, asid, vmid)
        while row >= 0:
            _drop(tlb, row)
            row = _find(tlb, buffer, va, asid, vmid)
        bits = walk.page_bits if _holds_superpages(tlb, buffer) else pte.PAGE_BITS
        placed = _place(tlb, buffer, va, bits, vmid)
        entry = tlb.entries[placed]
        offset = va - entry.va
        entry.asid = asid
        entry.perm = walk.perm
        entry.pa = walk.pa - offset
        entry.gpa = -1 if walk.g_level < 0 else walk.gpa - offset
        entry.vs_bits = walk.vs_page_bits
        entry.g_bits = walk.g_page_bits
        entry.g_perm = walk.g_perm
        if walk.vs_page_bits > bits:
            _count_fragment(tlb, placed, 1)
    return placed


@kernel
def _fenced(entry: Any, form: int, va: int, asid: int, vmid: int) -> bool:
    # An entry made with a Bare first stage depends on no first-stage table.
    if entry.last_use == 0 or entry.vmid != vmid or entry.vs_bits == BARE_BITS:
        return False
    if form & _FORM_ASID and (entry.asid != asid or entry.perm & pte.G):
        return False
    bits = entry.vs_bits
    return not form & _FORM_VA or entry.va >> bits == va >> bits


@kernel
def invalidate(tlb: Tlb, form: int, va: int, asid: int, vmid: int) -> None:
    """Remove what ``sfence.vma``, ``sinval.vma``, ``hfence.vvma`` or ``hinval.vvma`` covers.

    :param tlb: changed in place.
    :param form: :class:`~hypervisor_model.events.Fence` form: with an address, with an ASID.
    :param va: for forms with an address; an invalid one matches no entry, so it has no effect.
    :param asid: for forms with an ASID; these spare global entries.
    :param vmid: whose first stage: -1 for a fence with V=0 (not ``hfence.vvma``), else the VMID in
        ``hgatp``.
    """
    for buffer in (DATA, FETCH, SECOND):
        ways = tlb.buffers[buffer].ways
        if ways == 0:
            continue
        start = tlb.buffers[buffer].first
        if not form & _FORM_VA or _may_have_fragments(tlb, buffer, va):
            for row in range(start, start + tlb.buffers[buffer].sets * ways):
                if _fenced(tlb.entries[row], form, va, asid, vmid):
                    _drop(tlb, row)
            continue
        # No entry here is a part of a larger page, so the size of its page selects its set.
        for bits in PAGE_BITS:
            if tlb.population[0, bits] == 0:
                continue
            first = start + _set_of(tlb, buffer, va, bits) * ways
            for row in range(first, first + ways):
                if _fenced(tlb.entries[row], form, va, asid, vmid):
                    _drop(tlb, row)


@kernel
def invalidate_g(tlb: Tlb, form: int, gpa: int, vmid: int) -> None:
    """Remove what ``hfence.gvma`` or ``hinval.gvma`` covers.

    :param tlb: changed in place.
    :param form: Fence form: with an address, with a VMID (``events`` calls it ASID).
    :param gpa: for forms with an address: the guest-physical address (rs1 shifted left by two).
    :param vmid: for forms with a VMID.
    """
    for row in range(tlb.entries.shape[0]):
        entry = tlb.entries[row]
        if entry.last_use == 0 or entry.vmid < 0:
            continue
        if form & _FORM_ASID and entry.vmid != vmid:
            continue
        bits = entry.g_bits
        if form & _FORM_VA and (entry.gpa < 0 or entry.gpa >> bits != gpa >> bits):
            continue
        _drop(tlb, row)


@kernel
def fence(
    tlb: Tlb, cache: WalkCache, instruction: int, address: int, identifier: int, vmid: int
) -> None:
    """Do to a TLB and its walk cache what one FENCE event asks for.

    :param tlb: changed in place.
    :param cache: changed in place, by the forms without an address only.
    :param instruction: ``sub`` of the event: instruction and form.
    :param address: ``a`` of the event: virtual, or guest-physical for the ``gvma`` instructions.
    :param identifier: ``b`` of the event: ASID, or VMID for the ``gvma`` instructions, without the
        bits that are ignored (:func:`hypervisor_model.isa.atp.fence_identifier`).
    :param vmid: the VMID the hart runs with: -1 for V=0; unused by the ``gvma`` instructions.
    """
    form = instruction & _FORM
    kind = instruction & ~_FORM
    if kind in (_HFENCE_GVMA, _HINVAL_GVMA):
        invalidate_g(tlb, form, address, identifier)
        if not form & _FORM_VA:
            _invalidate_tables(cache, G_STAGE, -1, identifier if form & _FORM_ASID else -2)
        return
    invalidate(tlb, form, address, identifier, vmid)
    if not form & _FORM_VA:
        _invalidate_tables(cache, VS_STAGE, identifier if form & _FORM_ASID else -1, vmid)


@kernel
def fence_range(
    tlb: Tlb,
    cache: WalkCache,
    instruction: int,
    first: int,
    last: int,
    identifier: int,
    vmid: int,
) -> None:
    """As :func:`fence`, for each page from that of ``first`` to that of ``last``.

    Not for the ``gvma`` instructions.
    """
    form = instruction & _FORM
    if not form & _FORM_VA or first >> pte.PAGE_BITS == last >> pte.PAGE_BITS:
        fence(tlb, cache, instruction, first, identifier, vmid)
        return
    for row in range(tlb.entries.shape[0]):
        entry = tlb.entries[row]
        bits = entry.vs_bits
        if (
            first >> bits <= entry.va >> bits <= last >> bits
            and _fenced(entry, form & ~_FORM_VA, first, identifier, vmid)
        ):  # fmt: skip
            _drop(tlb, row)


@kernel
def displace(tlb: Tlb, n_data: int, n_code: int) -> int:
    """Let the hypervisor touch its ``n_data`` data pages and ``n_code`` code pages, as an exit
    does (paging-models section 5), and return how many guest entries went for them.

    The pages are the same at every exit, so those still cached displace nothing.  Ours: they take
    the guest's least recently used entries, and LRU gives them up first, so that what the guest
    used last in a set stays, and its entries keep their order.  A core that ranks them by their
    use keeps them longer.
    """
    before = tlb.counts[0].displaced
    for page in range(n_data + n_code):
        buffer = DATA if page < n_data else FETCH
        va = page << pte.PAGE_BITS
        for level in (SECOND, buffer):
            if tlb.buffers[level].ways == 0:
                continue
            if _find(tlb, level, va, 0, HYPERVISOR) >= 0:
                continue
            entry = tlb.entries[_place(tlb, level, va, pte.PAGE_BITS, HYPERVISOR)]
            entry.asid = 0
            entry.perm = pte.PERMISSIONS & ~pte.G
            entry.pa = va
            entry.gpa = -1
            entry.vs_bits = pte.PAGE_BITS
            entry.g_bits = BARE_BITS
            entry.g_perm = pte.PERMISSIONS
    return tlb.counts[0].displaced - before  # type: ignore[no-any-return]
