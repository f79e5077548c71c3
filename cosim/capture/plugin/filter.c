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

/* Slots: tag = page address | class << 1 | mxr << 3 | stored to << 4 | 1, or 0. */
enum { TAG_USED = 1, TAG_CLASS = 1, TAG_MXR = 3, TAG_STORED = 1 << 4 };

static struct buffer {
    uint64_t tags[FAST_SLOTS];
    /* Page numbers within RAM, plus 1, of the tables that the slot's page is translated through. */
    uint32_t paths[MAX_LEVELS][FAST_SLOTS];
    uint32_t pages[FAST_SLOTS]; /* the page number within RAM, plus 1, that it is translated to */
    uint8_t bits[FAST_SLOTS]; /* log2 of the size of the mapping that the page belongs to */
    uint64_t filled[FAST_SLOTS / 64]; /* a bit for each slot */
} buffers[MAX_HARTS][BUFFERS];

static unsigned slot_count, slot_mask, hart_count;

static unsigned slot_of(uint64_t va)
{
    return va >> PAGE_BITS & slot_mask;
}

/* Return the first slot from `slot` on that holds a page.  If there is none, return `slot_count` or
 * more. */
static unsigned next_filled(const struct buffer *buffer, unsigned slot)
{
    while (slot < slot_count) {
        uint64_t left = buffer->filled[slot / 64] >> slot % 64;
        if (left) {
            return slot + __builtin_ctzll(left);
        }
        slot = (slot / 64 + 1) * 64;
    }
    return slot;
}

/* How many slots have each page of RAM in their paths.  Most tables that are written are in none. */
static uint32_t *in_paths;

/* By page number within RAM, for pages that were tables: the epoch in which each entry, when it
 * was valid, was last written.  Epochs end at fences. */
static uint32_t **written_in;
static uint32_t epoch = 1;

static void forget_fast(unsigned hart, unsigned slot, enum class class)
{
    fast_of[hart][slot].page[class][ACCESS_READ] = NOWHERE;
    fast_of[hart][slot].page[class][ACCESS_WRITE] = NOWHERE;
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
        for (int class = 0; class < CLASSES; class++) {
            for (unsigned slot = 0; slot <= slot_mask; slot++) {
                forget_fast(hart, slot, class);
            }
        }
    }
}

void filter_take_turns(unsigned hart)
{
    fast = fast_of[hart];
    known_code = known_code_of[hart];
}

static void empty(unsigned hart, int which, unsigned slot)
{
    struct buffer *buffer = &buffers[hart][which];
    uint64_t tag = buffer->tags[slot];
    if (!tag) {
        return;
    }
    buffer->tags[slot] = 0;
    buffer->filled[slot / 64] &= ~(1ull << slot % 64);
    for (int level = 0; level < MAX_LEVELS; level++) {
        if (buffer->paths[level][slot]) {
            in_paths[buffer->paths[level][slot] - 1]--;
            buffer->paths[level][slot] = 0;
        }
    }
    if (which == DATA) {
        forget_fast(hart, slot, tag >> TAG_CLASS & 3);
    } else {
        struct known_code *known = &known_code_of[hart][buffer->pages[slot] % KNOWN_CODE];
        if (known->va == (tag & -(uint64_t)PAGE)) {
            known->from = 0;
        }
    }
}

void filter_forget(void)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        for (int which = 0; which < BUFFERS; which++) {
            const struct buffer *buffer = &buffers[hart][which];
            for (unsigned slot = next_filled(buffer, 0); slot < slot_count;
                 slot = next_filled(buffer, slot + 1)) {
                empty(hart, which, slot);
            }
        }
    }
}

/* Let a slot hold a page, unless its translation is in doubt. */
static void remember(unsigned hart, int which, unsigned slot, uint64_t tag, uint64_t va,
                     uint64_t pa, uint64_t satp)
{
    struct buffer *buffer = &buffers[hart][which];
    if (slot_count == 0) {
        return;
    }
    struct walk walk = guest_walk(satp, va);
    empty(hart, which, slot);
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
        uint32_t number = (walk.path[level] - ram.base) / PAGE;
        buffer->paths[level][slot] = number + 1;
        in_paths[number]++;
    }
    buffer->bits[slot] = walk.bits;
    buffer->pages[slot] = (pa - ram.base) / PAGE + 1;
    buffer->tags[slot] = tag;
    buffer->filled[slot / 64] |= 1ull << slot % 64;
}

static uint64_t tag_of(enum class class, bool mxr, uint64_t va)
{
    return (va & -(uint64_t)PAGE) | class << TAG_CLASS | (uint64_t)mxr << TAG_MXR | TAG_USED;
}

bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp)
{
    int which = kind == ACCESS_FETCH ? CODE : DATA;
    unsigned slot = slot_of(va);
    if (class >= CLASSES || (class == CLASS_SUM && mxr)) {
        empty(hart, which, slot);
        return true;
    }
    uint64_t tag = tag_of(class, mxr, va);
    uint64_t held = buffers[hart][which].tags[slot];
    if ((held & ~(uint64_t)TAG_STORED) == tag && (kind != ACCESS_WRITE || held & TAG_STORED)) {
        return false;
    }
    remember(hart, which, slot, kind == ACCESS_WRITE ? tag | TAG_STORED : tag, va, pa, satp);
    if (which == DATA && buffers[hart][which].tags[slot]) {
        fast_of[hart][slot].page[class][ACCESS_READ] = va & -(uint64_t)PAGE;
    }
    return true;
}

void filter_know_code(unsigned hart, enum class class, bool mxr, uint64_t va, uint32_t page,
                      uint64_t from)
{
    const struct buffer *buffer = &buffers[hart][CODE];
    unsigned slot = slot_of(va);
    bool held = slot_count > 1 && class < CLASSES && buffer->tags[slot] == tag_of(class, mxr, va) &&
                buffer->pages[slot] == page;
    known_code[page % KNOWN_CODE] =
        (struct known_code){.from = held ? from : 0, .va = va & -(uint64_t)PAGE};
}

void filter_faulted(unsigned hart, enum access kind, uint64_t va)
{
    empty(hart, kind == ACCESS_FETCH ? CODE : DATA, slot_of(va));
}

void filter_allow_stores(unsigned hart, enum class class, bool mxr, uint64_t va)
{
    unsigned slot = slot_of(va);
    if (class < CLASSES &&
        buffers[hart][DATA].tags[slot] == (tag_of(class, mxr, va) | TAG_STORED)) {
        fast_of[hart][slot].page[class][ACCESS_WRITE] = va & -(uint64_t)PAGE;
    }
}

void filter_tables_grew(void)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        const struct buffer *buffer = &buffers[hart][DATA];
        for (unsigned slot = next_filled(buffer, 0); slot < slot_count;
             slot = next_filled(buffer, slot + 1)) {
            for (int class = 0; class < CLASSES; class++) {
                fast_of[hart][slot].page[class][ACCESS_WRITE] = NOWHERE;
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
    for (unsigned hart = 0; hart < hart_count; hart++) {
        for (int which = 0; which < BUFFERS; which++) {
            const struct buffer *buffer = &buffers[hart][which];
            for (unsigned slot = next_filled(buffer, 0); slot < slot_count;
                 slot = next_filled(buffer, slot + 1)) {
                if (((buffer->tags[slot] ^ va) >> buffer->bits[slot]) == 0) {
                    empty(hart, which, slot);
                }
            }
        }
    }
    struct walk walk = guest_walk(satp, va);
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
    for (unsigned hart = 0; hart < hart_count; hart++) {
        for (int which = 0; which < BUFFERS; which++) {
            const struct buffer *buffer = &buffers[hart][which];
            for (unsigned slot = next_filled(buffer, 0); slot < slot_count;
                 slot = next_filled(buffer, slot + 1)) {
                bool through = false;
                for (int level = 0; levels >> level != 0; level++) {
                    through |= (levels >> level & 1) && buffer->paths[level][slot] == number + 1;
                }
                if (through) {
                    empty(hart, which, slot);
                }
            }
        }
    }
}
