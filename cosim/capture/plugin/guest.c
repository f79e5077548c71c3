/* For RTLD_DEFAULT. */
#define _GNU_SOURCE
#include "guest.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct ram ram;

bool ram_find(const char *name, uint64_t base, uint64_t size)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4352];
    while (maps && !ram.bytes && fgets(line, sizeof(line), maps)) {
        unsigned long long start, end, offset;
        if (sscanf(line, "%llx-%llx %*s %llx", &start, &end, &offset) == 3 && offset == 0 &&
            end - start >= size && strstr(line, name)) {
            ram = (struct ram){.bytes = (const uint8_t *)start, .base = base, .size = size};
        }
    }
    if (maps) {
        fclose(maps);
    }
    if (!ram.bytes) {
        fprintf(stderr, "cosim plugin: no mapping %s of guest RAM in this process\n", name);
    }
    return ram.bytes != NULL;
}

void guest_walk(struct walk *walk, uint64_t atp, uint64_t va)
{
    *walk = (struct walk){.levels = atp_levels(atp)};
    if (walk->levels == 0) {
        walk->ok = true;
        walk->pa = va;
        walk->bits = 63;
        return;
    }
    int unused = 64 - PAGE_BITS - 9 * walk->levels;
    if ((uint64_t)((int64_t)(va << unused) >> unused) != va) {
        return;
    }
    uint64_t table = atp_root(atp);
    for (int level = walk->levels - 1; level >= 0 && ram_holds(table); level--) {
        unsigned shift = PAGE_BITS + 9 * level;
        uint64_t entry = ram_word(table + 8 * (va >> shift & (ENTRIES - 1)));
        walk->path[level] = table;
        walk->last = level;
        walk->entry = entry;
        if (!(entry & PTE_V)) {
            return;
        }
        if (pte_is_leaf(entry)) {
            /* If Svnapot widens a 4 KiB leaf, the low PPN bits come from the address too. */
            if (entry >> 63 && level == 0) {
                shift += 4;
            }
            uint64_t inside = (1ull << shift) - 1;
            walk->pa = (pte_target(entry) & ~inside) | (va & inside);
            walk->bits = shift;
            walk->ok = true;
            return;
        }
        table = pte_target(entry);
    }
}

/* The harts of a machine are of one kind, so a register has the same handle on all of them. */
static struct qemu_plugin_register *handles[REG_COUNT];

bool registers_find(void)
{
    static const char *const names[REG_COUNT] = {
        "zero", "ra", "sp",  "gp",  "tp", "t0", "t1", "t2", "fp", "s1", "a0",
        "a1",   "a2", "a3",  "a4",  "a5", "a6", "a7", "s2", "s3", "s4", "s5",
        "s6",   "s7", "s8",  "s9",  "s10", "s11", "t3", "t4", "t5", "t6", "pc",
        "priv", "satp", "vsatp", "hgatp", "stvec", "mtvec", "scause", "stval", "sepc",
        "mcause", "mepc", "mtval", "sstatus", "mstatus", "hstatus",
        "menvcfg", "henvcfg", "mhartid"};
    struct glib_array *list = qemu_plugin_get_registers();
    const struct register_name *known = (const struct register_name *)list->data;
    for (unsigned i = 0; i < list->length; i++) {
        for (int reg = 0; reg < REG_COUNT; reg++) {
            if (strcmp(known[i].name, names[reg]) == 0) {
                handles[reg] = known[i].handle;
            }
        }
    }
    g_array_free(list, 1);
    for (int reg = 0; reg < REG_COUNT; reg++) {
        bool optional = reg == REG_VSATP || reg == REG_HGATP || reg == REG_HSTATUS ||
                        reg == REG_MENVCFG || reg == REG_HENVCFG;
        if (!handles[reg] && !optional) {
            fprintf(stderr, "cosim plugin: QEMU does not show the register %s\n", names[reg]);
            return false;
        }
    }
    return true;
}

uint64_t reg_read(int reg)
{
    static _Thread_local struct glib_bytes *buffer __attribute__((tls_model("initial-exec")));
    uint64_t value = 0;
    if (!handles[reg]) {
        return 0;
    }
    if (!buffer) {
        buffer = g_byte_array_new();
    }
    buffer->length = 0;
    int size = qemu_plugin_read_register(handles[reg], buffer);
    if (size > 0) {
        memcpy(&value, buffer->data, size < 8 ? (size_t)size : 8);
    }
    return value;
}

/* QEMU's variable with the running vCPU.  It belongs to a thread, and one thread runs all harts.  A
 * QEMU that is built without modules does not show it. */
static void *const *current_vcpu;
/* QEMU's function that makes a vCPU leave its code. */
static void (*leave_code)(void *vcpu);

void turns_find(void)
{
    current_vcpu = dlsym(RTLD_DEFAULT, "current_cpu");
    leave_code = (void (*)(void *))dlsym(RTLD_DEFAULT, "cpu_exit");
}

void end_turn(void)
{
    if (current_vcpu && leave_code) {
        leave_code(*current_vcpu);
    }
}

bool same_hart_runs(void)
{
    static const void *last;
    static uint64_t last_id = ~0ull;
    if (current_vcpu) {
        bool same = *current_vcpu == last;
        last = *current_vcpu;
        return same;
    }
    uint64_t id = reg_read(REG_MHARTID);
    bool same = id == last_id;
    last_id = id;
    return same;
}
