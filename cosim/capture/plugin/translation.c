#include "translation.h"

#include "guest.h"

#include <string.h>

static uint64_t plugin_id;
static void (*on_renewed)(uint64_t plugin);
static bool renewing;
/* Offsets at which translated blocks begin, one bit for each even offset in a page. */
static uint64_t translated[PAGE / 2 / 64];

void translation_open(uint64_t plugin, void (*renewed)(uint64_t plugin))
{
    plugin_id = plugin;
    on_renewed = renewed;
}

static void on_reset(uint64_t id)
{
    renewing = false;
    memset(translated, 0, sizeof(translated));
    on_renewed(id);
}

void translate_anew(void)
{
    if (!renewing) {
        renewing = true;
        qemu_plugin_reset(plugin_id, on_reset);
    }
}

void note_translated(uint64_t va)
{
    unsigned bit = (va & (PAGE - 1)) / 2;
    translated[bit / 64] |= 1ull << bit % 64;
}

bool is_translated(uint64_t va)
{
    unsigned bit = (va & (PAGE - 1)) / 2;
    return translated[bit / 64] >> bit % 64 & 1;
}
