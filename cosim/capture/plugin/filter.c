#include "filter.h"

#include <stdlib.h>
#include <string.h>

enum { DATA, CODE, BUFFERS };

/* An address that no access has: not canonical in any mode. */
static const uint64_t NOWHERE = 1ull << 63 | 1;

uint64_t fast[MAX_HARTS][CLASSES][2][FAST_SLOTS];
uint64_t fast_mask;

/* Slots: tag = page address | class << 1 | mxr << 3 | stored to << 4 | 1, or 0. */
enum { TAG_USED = 1, TAG_CLASS = 1, TAG_MXR = 3, TAG_STORED = 1 << 4 };
static uint64_t tags[MAX_HARTS][BUFFERS][FAST_SLOTS];
/* Page numbers within RAM, plus 1, of the tables that the slot's page is translated through. */
static uint32_t paths[MAX_HARTS][BUFFERS][MAX_LEVELS][FAST_SLOTS];
static unsigned slot_count, hart_count;

/* Whether a hart may use a translation that RAM no longer holds. */
static bool stale[MAX_HARTS];
/* By page number within RAM, for pages that were tables: the epoch in which each entry, when it
 * was valid, was last written.  Epochs end at fences. */
static uint32_t **written_in;
static uint32_t epoch = 1;

static void close_fast(unsigned hart, enum access kind)
{
    for (int class = 0; class < CLASSES; class++) {
        for (uint64_t i = 0; i <= fast_mask; i++) {
            fast[hart][class][kind][i] = NOWHERE;
        }
    }
}

void filter_open(unsigned slots, unsigned harts)
{
    slot_count = slots;
    hart_count = harts;
    fast_mask = (slots ? slots : FAST_SLOTS / 2) - 1;
    written_in = calloc(ram.size >> PAGE_BITS, sizeof(*written_in));
    if (!written_in) {
        abort();
    }
    for (unsigned hart = 0; hart < hart_count; hart++) {
        close_fast(hart, READ);
        close_fast(hart, WRITE);
        /* What happened before the region is not known. */
        stale[hart] = true;
    }
}

static void empty(unsigned hart, int buffer, unsigned slot)
{
    tags[hart][buffer][slot] = 0;
    for (int level = 0; level < MAX_LEVELS; level++) {
        paths[hart][buffer][level][slot] = 0;
    }
    for (int class = 0; buffer == DATA && class < CLASSES; class++) {
        fast[hart][class][READ][slot] = NOWHERE;
        fast[hart][class][WRITE][slot] = NOWHERE;
    }
}

static void remember(unsigned hart, int buffer, unsigned slot, uint64_t tag, uint64_t va,
                     uint64_t pa, uint64_t satp)
{
    struct walk walk = guest_walk(satp, va);
    empty(hart, buffer, slot);
    if (!walk.ok || (walk.pa ^ pa) >> PAGE_BITS != 0) {
        return;
    }
    for (int level = 0; level < walk.levels; level++) {
        if (walk.path[level]) {
            uint32_t number = (walk.path[level] - ram.base) / PAGE;
            const uint32_t *written = written_in[number];
            if (written && written[va >> (PAGE_BITS + 9 * level) & (ENTRIES - 1)] == epoch) {
                return;
            }
            paths[hart][buffer][level][slot] = number + 1;
        }
    }
    tags[hart][buffer][slot] = tag;
}

bool filter_passes(unsigned hart, enum class class, bool mxr, enum access kind, uint64_t va,
                   uint64_t pa, uint64_t satp)
{
    if (class >= CLASSES) {
        return true;
    }
    int buffer = kind == FETCH ? CODE : DATA;
    unsigned slot = va >> PAGE_BITS & (slot_count - 1);
    uint64_t page = va & -(uint64_t)PAGE;
    uint64_t tag = page | class << TAG_CLASS | (uint64_t)mxr << TAG_MXR | TAG_USED;
    uint64_t held = tags[hart][buffer][slot];
    if ((held & ~(uint64_t)TAG_STORED) == tag && (kind != WRITE || held & TAG_STORED)) {
        return false;
    }
    if (kind == WRITE) {
        tag |= TAG_STORED;
    }
    remember(hart, buffer, slot, tag, va, pa, satp);
    if (buffer == DATA && tags[hart][buffer][slot]) {
        fast[hart][class][READ][slot] = page;
    }
    return true;
}

void filter_allow_stores(unsigned hart, enum class class, uint64_t va)
{
    uint64_t page = va & -(uint64_t)PAGE;
    unsigned slot = va >> PAGE_BITS & fast_mask;
    if (stale[hart] || class >= CLASSES) {
        return;
    }
    if (slot_count) {
        uint64_t tag = tags[hart][DATA][slot];
        if (!(tag & TAG_STORED) || (tag & -(uint64_t)PAGE) != page ||
            (tag >> TAG_CLASS & 3) != class) {
            return;
        }
    }
    fast[hart][class][WRITE][slot] = page;
}

void filter_tables_grew(void)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        close_fast(hart, WRITE);
    }
}

void filter_forget(void)
{
    for (unsigned hart = 0; hart < hart_count; hart++) {
        close_fast(hart, READ);
        close_fast(hart, WRITE);
        memset(tags[hart][DATA], 0, slot_count * sizeof(tags[hart][DATA][0]));
        memset(tags[hart][CODE], 0, slot_count * sizeof(tags[hart][CODE][0]));
    }
}

void filter_fenced(unsigned hart)
{
    stale[hart] = false;
    epoch++;
    filter_forget();
}

void filter_pte_written(uint64_t entry, unsigned levels, uint64_t old)
{
    uint32_t number = (entry - ram.base) / PAGE;
    bool was_valid = old & PTE_V;
    if (was_valid && slot_count) {
        if (!written_in[number] && !(written_in[number] = calloc(ENTRIES, sizeof(uint32_t)))) {
            abort();
        }
        written_in[number][(entry & (PAGE - 1)) >> 3] = epoch;
    }
    for (unsigned hart = 0; hart < hart_count; hart++) {
        if (was_valid && !stale[hart]) {
            stale[hart] = true;
            close_fast(hart, WRITE);
        }
        for (int level = 0; levels >> level != 0; level++) {
            for (int buffer = 0; (levels >> level & 1) && buffer < BUFFERS; buffer++) {
                const uint32_t *path = paths[hart][buffer][level];
                for (unsigned slot = 0; slot < slot_count; slot++) {
                    if (path[slot] == number + 1) {
                        empty(hart, buffer, slot);
                    }
                }
            }
        }
    }
}
