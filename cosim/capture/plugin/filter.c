#include "filter.h"

#include <stdlib.h>
#include <string.h>

enum { DATA, CODE, BUFFERS };

/* An address that no access has: not canonical in any mode. */
static const uint64_t NOWHERE = 1ull << 63 | 1;

static struct fast_slot fast_of[MAX_HARTS][FAST_SLOTS];
struct fast_slot *fast = fast_of[0];
uint64_t fast_mask;
static struct known_code known_code_of[MAX_HARTS][KNOWN_CODE];
struct known_code *known_code = known_code_of[0];

/* A slot's tag: page address | class << 1 | mxr << 3 | stored to << 4 | 1; 0 if it is empty. */
enum { TAG_USED = 1, TAG_CLASS = 1, TAG_MXR = 3, TAG_STORED = 1 << 4 };

struct slot {
    uint64_t tag;
    /* Page numbers within RAM, plus 1, of the tables that its page is translated through; 0: none. */
    uint32_t path[MAX_LEVELS];
    uint32_t page; /* the page number within RAM, plus 1, that it is translated to */
    uint8_t bits;  /* log2 of the size of the mapping that the page belongs to */
};
static struct buffer {
    struct slot slots[FAST_SLOTS];
    uint64_t filled[FAST_SLOTS / 64]; /* a bit for each slot */
    /* What is known from these slots: of data and of code. */
    struct fast_slot *fast;
    struct known_code *known_code;
} buffers[MAX_HARTS][BUFFERS];

static unsigned slot_count, slot_mask, hart_count;

static unsigned number_of(uint64_t va)
{
    return va >> PAGE_BITS & slot_mask;
}

/* Return the number of the first slot from `number` on that holds a page.  If there is none, return
 * `slot_count` or more. */
static unsigned next_filled(const struct buffer *buffer, unsigned number)
{
    while (number < slot_count) {
        uint64_t left = buffer->filled[number / 64] >> number % 64;
        if (left) {
            return number + __builtin_ctzll(left);
        }
        number = (number / 64 + 1) * 64;
    }
    return number;
}

/* How many slots have each page of RAM in their paths.  Most tables that are written are in none. */
static uint32_t *in_paths;

/* By page number within RAM, for pages that were tables: the epoch in which each entry, when it
 * was valid, was last written.  Epochs end at fences. */
static uint32_t **written_in;
static uint32_t epoch = 1;

static void forget_fast(struct fast_slot *slot, enum class class)
{
    slot->page[class][ACCESS_READ] = NOWHERE;
    slot->page[class][ACCESS_WRITE] = NOWHERE;
}

void filter_open(unsigned slots, unsigned harts)
{
    slot_count = slots;
    hart_count = harts;
    slot_mask = slots ? slots - 1 : 0;
    fast_mask = (uint64_t)slot_mask << FAST_SLOT_BITS;
    written_in = calloc(ram.size >> PAGE_BITS, sizeof(*written_in));
    in_paths = calloc(ram.size >> PAGE_BITS, sizeof(*in_paths));
    if (!written_in || !in_paths) {
        abort();
    }
    for (unsigned hart = 0; hart < harts; hart++) {
        buffers[hart][DATA].fast = fast_of[hart];
        buffers[hart][CODE].known_code = known_code_of[hart];
        for (int class = 0; class < CLASSES; class++) {
            for (unsigned i = 0; i <= slot_mask; i++) {
                forget_fast(&fast_of[hart][i], class);
            }
        }
    }
}

void filter_take_turns(unsigned hart)
{
    fast = fast_of[hart];
    known_code = known_code_of[hart];
}

static void empty(struct buffer *buffer, unsigned number)
{
    struct slot *slot = &buffer->slots[number];
    if (!slot->tag) {
        return;
    }
    for (int level = 0; level < MAX_LEVELS; level++) {
        if (slot->path[level]) {
            in_paths[slot->path[level] - 1]--;
            slot->path[level] = 0;
        }
    }
    if (buffer->fast) {
        forget_fast(&buffer->fast[number], slot->tag >> TAG_CLASS & 3);
    }
    if (buffer->known_code) {
        struct known_code *known = &buffer->known_code[slot->page % KNOWN_CODE];
        if (known->va == (slot->tag & -(uint64_t)PAGE)) {
            known->from = 0;
        }
    }
    slot->tag = 0;
    buffer->filled[number / 64] &= ~(1ull << number % 64);
}

void filter_forget(void)
{
    for (struct buffer *buffer = buffers[0]; buffer < buffers[hart_count]; buffer++) {
        for (unsigned i = next_filled(buffer, 0); i < slot_count; i = next_filled(buffer, i + 1)) {
            empty(buffer, i);
        }
    }
}

/* Let a slot hold a page, unless its translation is in doubt. */
static void remember(struct buffer *buffer, unsigned number, uint64_t tag, uint64_t va, uint64_t pa,
                     uint64_t satp)
{
    struct slot *slot = &buffer->slots[number];
    if (slot_count == 0) {
        return;
    }
    struct walk walk;
    guest_walk(&walk, satp, va);
    empty(buffer, number);
    if (!walk.ok || (walk.pa ^ pa) >> PAGE_BITS != 0) {
        return;
    }
    for (int level = walk.last; level < walk.levels; level++) {
        const uint32_t *written = written_in[(walk.path[level] - ram.base) / PAGE];
        if (written && written[va >> (PAGE_BITS + 9 * level) & (ENTRIES - 1)] == epoch) {
            return;
        }
    }
    for (int level = walk.last; level < walk.levels; level++) {
        uint32_t table = (walk.path[level] - ram.base) / PAGE;
        slot->path[level] = table + 1;
        in_paths[table]++;
    }
    slot->bits = walk.bits;
    slot->page = (pa - ram.base) / PAGE + 1;
    slot->tag = tag;
    buffer->filled[number / 64] |= 1ull << number % 64;
}

static struct buffer *buffer_of(unsigned hart, enum access kind)
{
    return &buffers[hart][kind == ACCESS_FETCH ? CODE : DATA];
}

static uint64_t tag_of(enum class class, bool mxr, uint64_t va)
{
    return (va & -(uint64_t)PAGE) | class << TAG_CLASS | (uint64_t)mxr << TAG_MXR | TAG_USED;
}

bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp)
{
    struct buffer *buffer = buffer_of(hart, kind);
    unsigned number = number_of(va);
    if (class >= CLASSES || (class == CLASS_SUM && mxr)) {
        empty(buffer, number);
        return true;
    }
    const struct slot *slot = &buffer->slots[number];
    uint64_t tag = tag_of(class, mxr, va), held = slot->tag;
    if ((held & ~(uint64_t)TAG_STORED) == tag && (kind != ACCESS_WRITE || held & TAG_STORED)) {
        return false;
    }
    remember(buffer, number, kind == ACCESS_WRITE ? tag | TAG_STORED : tag, va, pa, satp);
    if (buffer->fast && slot->tag) {
        buffer->fast[number].page[class][ACCESS_READ] = va & -(uint64_t)PAGE;
    }
    return true;
}

void filter_know_code(unsigned hart, enum class class, bool mxr, uint64_t va, uint32_t page,
                      uint64_t from)
{
    const struct buffer *buffer = &buffers[hart][CODE];
    const struct slot *slot = &buffer->slots[number_of(va)];
    bool held = slot_count > 1 && class < CLASSES && slot->tag == tag_of(class, mxr, va) &&
                slot->page == page;
    buffer->known_code[page % KNOWN_CODE] =
        (struct known_code){.from = held ? from : 0, .va = va & -(uint64_t)PAGE};
}

void filter_faulted(unsigned hart, enum access kind, uint64_t va)
{
    empty(buffer_of(hart, kind), number_of(va));
}

void filter_allow_stores(unsigned hart, enum class class, bool mxr, uint64_t va)
{
    unsigned number = number_of(va);
    if (class < CLASSES &&
        buffers[hart][DATA].slots[number].tag == (tag_of(class, mxr, va) | TAG_STORED)) {
        fast_of[hart][number].page[class][ACCESS_WRITE] = va & -(uint64_t)PAGE;
    }
}

void filter_tables_grew(void)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        const struct buffer *buffer = &buffers[hart][DATA];
        for (unsigned i = next_filled(buffer, 0); i < slot_count; i = next_filled(buffer, i + 1)) {
            for (int class = 0; class < CLASSES; class++) {
                fast_of[hart][i].page[class][ACCESS_WRITE] = NOWHERE;
            }
        }
    }
}

void filter_fenced(void)
{
    epoch++;
    filter_forget();
}

void filter_fenced_va(uint64_t va, bool spares_global, uint64_t satp)
{
    for (struct buffer *buffer = buffers[0]; buffer < buffers[hart_count]; buffer++) {
        for (unsigned i = next_filled(buffer, 0); i < slot_count; i = next_filled(buffer, i + 1)) {
            const struct slot *slot = &buffer->slots[i];
            if ((slot->tag ^ va) >> slot->bits == 0) {
                empty(buffer, i);
            }
        }
    }
    struct walk walk;
    guest_walk(&walk, satp, va);
    if (walk.path[walk.last] && !(spares_global && walk.entry & PTE_G)) {
        uint32_t *written = written_in[(walk.path[walk.last] - ram.base) / PAGE];
        if (written) {
            written[va >> (PAGE_BITS + 9 * walk.last) & (ENTRIES - 1)] = 0;
        }
    }
}

void filter_pte_written(uint64_t entry, unsigned levels, uint64_t old)
{
    uint32_t number = (entry - ram.base) / PAGE;
    if (old & PTE_V) {
        if (!written_in[number] && !(written_in[number] = calloc(ENTRIES, sizeof(uint32_t)))) {
            abort();
        }
        written_in[number][(entry & (PAGE - 1)) >> 3] = epoch;
    }
    if (in_paths[number] == 0) {
        return;
    }
    for (struct buffer *buffer = buffers[0]; buffer < buffers[hart_count]; buffer++) {
        for (unsigned i = next_filled(buffer, 0); i < slot_count; i = next_filled(buffer, i + 1)) {
            bool through = false;
            for (int level = 0; levels >> level != 0; level++) {
                through |= (levels >> level & 1) && buffer->slots[i].path[level] == number + 1;
            }
            if (through) {
                empty(buffer, i);
            }
        }
    }
}
