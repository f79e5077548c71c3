#include "tables.h"

#include <stdlib.h>
#include <string.h>

enum { NO_ROOT = -1 };

struct page {
    uint32_t links[MAX_LEVELS]; /* what reaches it, by the level it is linked at */
    int root_level;
    unsigned unset; /* entries in which an MMU may set A or D */
    uint64_t copy[ENTRIES]; /* its entries as events have shown them */
    struct page *next;      /* among the dropped ones */
};

static uint8_t *live_map;
static struct page **pages; /* index: page number within RAM */
/* Pages whose `unset` is not 0, a bit for each page of RAM. */
static uint64_t *unset_map;
/* Dropped pages that may still be looked at: a table that leads to itself is dropped while its own
 * links are followed. */
static struct page *dropped;
static uint64_t *roots;
static size_t root_count, root_room;
static struct tables_hooks hooks;
/* Entries that were found to differ from their copies. */
static uint64_t *found;
static size_t found_room;
static uint64_t hardware_updates;

void tables_open(struct tables_hooks given)
{
    size_t count = ram.size >> PAGE_BITS;
    live_map = calloc(count, 1);
    pages = calloc(count, sizeof(*pages));
    unset_map = calloc(count / 64 + 1, sizeof(*unset_map));
    if (!live_map || !pages || !unset_map) {
        abort();
    }
    hooks = given;
    root_count = 0;
    hardware_updates = 0;
}

static inline size_t number(uint64_t pa)
{
    return (pa - ram.base) >> PAGE_BITS;
}

bool tables_live(uint64_t pa)
{
    return ram_holds(pa) && live_map[number(pa)];
}

static unsigned levels_of(const struct page *page)
{
    unsigned levels = 0;
    for (int level = 0; level < MAX_LEVELS; level++) {
        levels |= (page->links[level] != 0) << level;
    }
    return levels;
}

/* Return true if an MMU may set A or D in the entry. */
static bool is_unset(uint64_t entry)
{
    return pte_is_leaf(entry) && (entry & (PTE_A | PTE_D)) != (PTE_A | PTE_D);
}

static void note_unset(size_t page, unsigned count)
{
    uint64_t bit = 1ull << page % 64;
    pages[page]->unset = count;
    unset_map[page / 64] = count ? unset_map[page / 64] | bit : unset_map[page / 64] & ~bit;
}

static struct page *read_page(uint64_t pa, int level, bool root, const struct stamp *at)
{
    struct page *page = calloc(1, sizeof(*page));
    if (!page) {
        abort();
    }
    page->root_level = NO_ROOT;
    pages[number(pa)] = page;
    live_map[number(pa)] = 1;
    hooks.grown();
    memcpy(page->copy, ram.bytes + (pa - ram.base), PAGE);
    struct event *event = emit(KIND_TABLE_ADD, at);
    event->a = pa;
    event->b = level;
    event->sub = root;
    unsigned unset = 0;
    for (int i = 0; i < ENTRIES; i++) {
        if (page->copy[i]) {
            event = emit(KIND_TABLE_ENTRY, at);
            event->a = pa + 8 * i;
            event->c = page->copy[i];
        }
        unset += is_unset(page->copy[i]);
    }
    note_unset(number(pa), unset);
    return page;
}

/* Rule 2. */
static void add(uint64_t pa, int level, bool root, const struct stamp *at)
{
    struct page *page = pages[number(pa)];
    if (!page) {
        page = read_page(pa, level, root, at);
    }
    if (page->links[level]++ > 0 || level == 0) {
        return;
    }
    for (int i = 0; i < ENTRIES; i++) {
        if (pte_is_link(page->copy[i])) {
            add(pte_target(page->copy[i]), level - 1, false, at);
        }
    }
}

/* Rule 4. */
static void drop_link(uint64_t pa, int level, const struct stamp *at)
{
    struct page *page = pages[number(pa)];
    if (--page->links[level] > 0) {
        return;
    }
    for (int i = 0; level > 0 && i < ENTRIES; i++) {
        if (pte_is_link(page->copy[i])) {
            drop_link(pte_target(page->copy[i]), level - 1, at);
        }
    }
    /* A table that links to itself may have been dropped by one of its own links. */
    if (pages[number(pa)] == page && levels_of(page) == 0) {
        emit(KIND_TABLE_DROP, at)->a = pa;
        note_unset(number(pa), 0);
        pages[number(pa)] = NULL;
        live_map[number(pa)] = 0;
        page->next = dropped;
        dropped = page;
    }
}

static void free_dropped(void)
{
    while (dropped) {
        struct page *page = dropped;
        dropped = page->next;
        free(page);
    }
}

void tables_load_root(uint64_t satp, const struct stamp *at)
{
    int level = atp_levels(satp) - 1;
    uint64_t pa = atp_root(satp);
    if (level < 0 || !ram_holds(pa)) {
        return;
    }
    struct page *page = pages[number(pa)];
    if (page && page->root_level != NO_ROOT) {
        return;
    }
    add(pa, level, true, at);
    pages[number(pa)]->root_level = level;
    if (root_count == root_room) {
        root_room = root_room ? 2 * root_room : 64;
        roots = realloc(roots, root_room * sizeof(*roots));
        if (!roots) {
            abort();
        }
    }
    roots[root_count++] = pa;
}

static void retire(uint64_t pa, const struct stamp *at)
{
    struct page *page = pages[number(pa)];
    int level = page->root_level;
    page->root_level = NO_ROOT;
    for (size_t i = 0; i < root_count; i++) {
        if (roots[i] == pa) {
            roots[i] = roots[--root_count];
            break;
        }
    }
    drop_link(pa, level, at);
}

/* Rule 5 (a), (b) and (d): before the store is emitted. */
static void retire_for_store(const struct part *part, bool small, const struct stamp *at)
{
    uint64_t pa = part->pa & -(uint64_t)PAGE;
    struct page *page = pages[number(pa)];
    if (page->root_level == NO_ROOT || hooks.is_loaded_root(pa)) {
        return;
    }
    bool retires = small;
    uint64_t own = pa + 8 * (at->pc >> (PAGE_BITS + 9 * page->root_level) & (ENTRIES - 1));
    for (uint64_t e = part->pa & -8ull; e < part->pa + part->length; e += 8) {
        uint64_t entry = ram_word(e), target = pte_target(entry);
        retires |= (entry & PTE_RESERVED) != 0;
        retires |= (entry & PTE_V) && !ram_holds(target) && target >= 2ull << 30;
        retires |= e == own && !(entry & PTE_V);
    }
    if (retires) {
        retire(pa, at);
    }
}

/* Rule 5 (c): a leaf entry of user memory was written. */
static void retire_mapped(uint64_t entry, int level, const struct stamp *at)
{
    uint64_t size = 1ull << (PAGE_BITS + 9 * level);
    uint64_t first = pte_target(entry) & -size;
    for (;;) {
        uint64_t lowest = UINT64_MAX;
        for (size_t i = 0; i < root_count; i++) {
            if (roots[i] - first < size && roots[i] < lowest && !hooks.is_loaded_root(roots[i])) {
                lowest = roots[i];
            }
        }
        if (lowest == UINT64_MAX) {
            return;
        }
        retire(lowest, at);
    }
}

/* Rule 3, for one entry. */
static void entry_written(uint64_t entry_pa, uint64_t pa, unsigned size, enum pte_op op, bool cont,
                          const struct stamp *at)
{
    uint64_t page_pa = entry_pa & -(uint64_t)PAGE;
    struct page *page = pages[number(page_pa)];
    unsigned i = (entry_pa & (PAGE - 1)) >> 3;
    uint64_t old = page->copy[i], new = ram_word(entry_pa);
    struct event *event = emit(KIND_PTE_WRITE, at);
    event->a = pa;
    event->b = old;
    event->c = new;
    event->sub = op;
    event->size = size < SIZE_MORE ? size : SIZE_MORE;
    event->flags = cont ? FLAG_CONT : 0;
    page->copy[i] = new;
    note_unset(number(page_pa), page->unset - is_unset(old) + is_unset(new));
    /* A and D change no translation. */
    if (op != PTE_OP_HARDWARE_AD) {
        hooks.entry_written(entry_pa, levels_of(page), old);
    }
    if (new == old) {
        return;
    }
    for (int level = 0; level < MAX_LEVELS && pages[number(page_pa)] == page; level++) {
        if (!page->links[level]) {
            continue;
        }
        if (level > 0 && pte_is_link(new)) {
            add(pte_target(new), level - 1, false, at);
        }
        if (level > 0 && pte_is_link(old)) {
            drop_link(pte_target(old), level - 1, at);
        }
        if (pte_is_leaf(new) && (new & PTE_U)) {
            retire_mapped(new, level, at);
        }
    }
}

void tables_store(const struct part *part, int parts, unsigned size, enum pte_op op,
                  const struct stamp *at)
{
    bool small = size < 8 || (part->pa & 7) + size > 8;
    free_dropped();
    for (int i = 0; i < parts; i++) {
        if (tables_live(part[i].pa)) {
            retire_for_store(&part[i], small, at);
        }
    }
    bool cont = false;
    for (int i = 0; i < parts; i++) {
        for (uint64_t e = part[i].pa & -8ull; e < part[i].pa + part[i].length; e += 8) {
            if (tables_live(e)) {
                entry_written(e, e < part[i].pa ? part[i].pa : e, size, op, cont, at);
                cont = true;
            }
        }
    }
}

bool tables_differ(const struct part *part, int parts)
{
    bool differ = false;
    for (int i = 0; i < parts; i++) {
        for (uint64_t e = part[i].pa & -8ull; e < part[i].pa + part[i].length; e += 8) {
            differ |= tables_live(e) &&
                      ram_word(e) != pages[number(e)]->copy[(e & (PAGE - 1)) >> 3];
        }
    }
    return differ;
}

/* Return true if the MMU may have made the change: it sets A, or A and D, in leaves. */
static bool is_by_mmu(uint64_t old, uint64_t now)
{
    return pte_is_leaf(old) && (old & ~now) == 0 && (now & ~old & ~(uint64_t)(PTE_A | PTE_D)) == 0;
}

static void note_found(size_t at, uint64_t entry)
{
    if (at == found_room) {
        found_room = found_room ? 2 * found_room : ENTRIES;
        found = realloc(found, found_room * sizeof(*found));
        if (!found) {
            abort();
        }
    }
    found[at] = entry;
}

/* Return the number of the first live page from `page` on; with `unset`, of those in which an MMU may
 * set A or D.  If there is none, return the number of pages in RAM. */
static size_t next_page(size_t page, bool unset)
{
    size_t count = ram.size >> PAGE_BITS;
    while (page < count) {
        uint64_t eight;
        if (unset) {
            uint64_t left = unset_map[page / 64] >> page % 64;
            if (left) {
                return page + __builtin_ctzll(left);
            }
            page = (page / 64 + 1) * 64;
        } else if (page % 8 == 0 && page + 8 <= count &&
                   (memcpy(&eight, &live_map[page], 8), eight == 0)) {
            page += 8;
        } else if (live_map[page]) {
            return page;
        } else {
            page++;
        }
    }
    return count;
}

/* Fill `found` with the entries that differ from their copies, by address: those that the MMU may
 * have changed, or the others.  Return how many there are.  Guests fence often, so the former are
 * looked for only where they can be. */
static size_t find_changed(bool by_mmu)
{
    bool sets_ad = hooks.mmu_sets_ad && hooks.mmu_sets_ad();
    size_t count = 0, end = ram.size >> PAGE_BITS;
    if (by_mmu && !sets_ad) {
        return 0;
    }
    for (size_t i = next_page(0, by_mmu); i < end; i = next_page(i + 1, by_mmu)) {
        const uint64_t *now = (const uint64_t *)(ram.bytes + (i << PAGE_BITS));
        if (memcmp(now, pages[i]->copy, PAGE) == 0) {
            continue;
        }
        for (int e = 0; e < ENTRIES; e++) {
            uint64_t old = pages[i]->copy[e], new = now[e];
            if (old != new && (sets_ad && is_by_mmu(old, new)) == by_mmu) {
                note_found(count++, ram.base + (i << PAGE_BITS) + 8 * e);
            }
        }
    }
    return count;
}

void tables_hardware_updates(const struct stamp *at)
{
    size_t count = find_changed(true);
    free_dropped();
    for (size_t i = 0; i < count; i++) {
        if (tables_live(found[i])) {
            entry_written(found[i], found[i], 8, PTE_OP_HARDWARE_AD, false, at);
            hardware_updates++;
        }
    }
}

void tables_device_writes(const struct stamp *at)
{
    size_t count = find_changed(false);
    free_dropped();
    for (size_t i = 0; i < count; i++) {
        if (tables_live(found[i])) {
            entry_written(found[i], found[i], 8, PTE_OP_OTHER, false, at);
        }
    }
}

void tables_vector_store(const struct stamp *at)
{
    size_t count = find_changed(false);
    free_dropped();
    for (size_t i = 0; i < count; i++) {
        struct part part = {.pa = found[i], .length = 8};
        if (tables_live(part.pa)) {
            retire_for_store(&part, true, at);
        }
    }
    bool cont = false;
    for (size_t i = 0; i < count; i++) {
        if (tables_live(found[i])) {
            entry_written(found[i], found[i], 0, PTE_OP_VECTOR, cont, at);
            cont = true;
        }
    }
}

struct audit tables_audit(void)
{
    struct audit audit = {.hardware_ad = hardware_updates};
    for (size_t i = 0; i < ram.size >> PAGE_BITS; i++) {
        if (!pages[i]) {
            continue;
        }
        const uint64_t *now = (const uint64_t *)(ram.bytes + (i << PAGE_BITS));
        audit.pages++;
        audit.entries += ENTRIES;
        for (int e = 0; e < ENTRIES; e++) {
            audit.differ += now[e] != pages[i]->copy[e];
        }
    }
    return audit;
}
