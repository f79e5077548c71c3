/*
 * The plugin's tables, decoder and processes without QEMU, for test_c_code.py and
 * test_processes.py.  Arrays replace the stream, and the hooks are the harness's own.
 */
#include "decode.h"
#include "options.h"
#include "processes.h"
#include "stream.h"
#include "tables.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

struct options options;
static struct event *events;
static size_t used, room;
static uint64_t loaded;
static struct stamp at;

struct event *emit(enum kind kind, const struct stamp *stamp)
{
    if (used == room) {
        room = room ? 2 * room : 1024;
        events = realloc(events, room * sizeof(*events));
    }
    events[used] = (struct event){
        .icount = -1, .pc = stamp->pc, .kind = kind, .hart = stamp->hart, .priv = stamp->priv};
    return &events[used++];
}

static bool is_loaded_root(uint64_t page)
{
    return atp_levels(loaded) && atp_root(loaded) == page;
}

static bool mmu_sets_ad(void)
{
    return true;
}

static void entry_written(uint64_t entry, unsigned levels, uint64_t old)
{
    (void)entry, (void)levels, (void)old;
}

static void grown(void) {}

EXPORT void harness_open(const uint8_t *bytes, uint64_t base, uint64_t size)
{
    ram = (struct ram){.bytes = bytes, .base = base, .size = size};
    used = 0;
    loaded = 0;
    tables_open((struct tables_hooks){.grown = grown,
                                      .is_loaded_root = is_loaded_root,
                                      .mmu_sets_ad = mmu_sets_ad,
                                      .entry_written = entry_written});
}

EXPORT void harness_load(uint64_t satp, uint64_t pc)
{
    at.pc = pc;
    loaded = satp;
    tables_load_root(satp, &at);
}

EXPORT void harness_store(const struct part *parts, int count, unsigned size, int op, uint64_t pc)
{
    at.pc = pc;
    tables_store(parts, count, size, op, &at);
}

EXPORT void harness_vector_store(uint64_t pc)
{
    at.pc = pc;
    tables_vector_store(&at);
}

EXPORT void harness_hardware_updates(uint64_t pc)
{
    at.pc = pc;
    tables_hardware_updates(&at);
}

EXPORT size_t harness_take(struct event **out)
{
    size_t count = used;
    *out = events;
    used = 0;
    return count;
}

/* -- processes -------------------------------------------------------------------------------- */

enum { NAMED = 1024 };
static struct named_process named[NAMED];
static unsigned named_count;

void stream_process(const struct named_process *process)
{
    if (named_count < NAMED) {
        named[named_count++] = *process;
    }
}

EXPORT void harness_processes(const uint8_t *bytes, uint64_t base, uint64_t size,
                              struct process_layout layout)
{
    ram = (struct ram){.bytes = bytes, .base = base, .size = size};
    options.processes = layout;
    named_count = 0;
    processes_open();
}

EXPORT uint32_t harness_process_loaded(uint64_t satp) { return process_loaded(satp); }

EXPORT void harness_process_leaves(uint64_t satp) { process_leaves(satp); }

EXPORT unsigned harness_named(struct named_process **out)
{
    *out = named;
    return named_count;
}

/* What guest.c needs of QEMU, and nobody calls here. */
struct glib_array *qemu_plugin_get_registers(void) { abort(); }

int qemu_plugin_read_register(struct qemu_plugin_register *handle, struct glib_bytes *into)
{
    (void)handle, (void)into;
    abort();
}

struct glib_bytes *g_byte_array_new(void) { abort(); }

char *g_array_free(struct glib_array *array, int free_segment)
{
    (void)array, (void)free_segment;
    abort();
}

EXPORT void harness_audit(struct audit *audit) { *audit = tables_audit(); }

/* op | detail << 8; of a write to a CSR, its address is the detail */
EXPORT unsigned harness_decode(uint32_t word)
{
    struct insn insn = decode(word);
    bool writes = insn.op == OP_ATP || insn.op == OP_VECTOR || insn.op == OP_STATUS ||
                  insn.op == OP_ENVCFG;
    return insn.op | (writes ? csr_addresses[insn.detail] : insn.detail) << 8;
}
