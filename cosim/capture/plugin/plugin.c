/*
 * Where QEMU enters: options, and what each translated instruction calls back.
 */
#include "capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

COSIM_EXPORT int qemu_plugin_version = COSIM_API_VERSION;

static uint64_t plugin_id;
static unsigned vcpus;
static bool opened, renewing;
/* Offsets at which translated blocks begin, a bit for each even one in a page. */
static uint64_t translated[PAGE / 2 / 64];

bool is_translated(uint64_t va)
{
    unsigned bit = (va & (PAGE - 1)) / 2;
    return translated[bit / 64] >> bit % 64 & 1;
}

static struct counter counter(size_t offset)
{
    return (struct counter){.board = counters, .offset = offset};
}
#define COUNTER(member) counter(offsetof(struct hart_counters, member))

/* -- translation -------------------------------------------------------------------------------- */

static uint32_t word_at(const void *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof(word));
    return word;
}

static uint32_t word_of(const struct qemu_plugin_insn *insn)
{
    uint32_t word = 0;
    qemu_plugin_insn_data(insn, &word, sizeof(word));
    return word;
}

/* Blocks are translated for one privilege, SUM and MPRV, so what holds now holds when they run. */
static enum class class_of(unsigned priv)
{
    if (priv & PRIV_VIRT) {
        return CLASS_OTHER;
    }
    if (priv == PRIV_M) {
        return reg_read(REG_MSTATUS) >> 17 & 1 ? CLASS_OTHER : CLASS_M;
    }
    if (priv == PRIV_S) {
        return reg_read(REG_SSTATUS) >> 18 & 1 ? CLASS_SUM : CLASS_S;
    }
    return CLASS_U;
}

static bool is_place(const struct limit *limit, uint64_t va)
{
    return limit->kind == AT_PC && ((limit->pc ^ va) & (PAGE - 1)) == 0;
}

/* Whether the instruction at `va` may, by its offset in its page, be a mark or a limit. */
static bool may_be_place(uint64_t va)
{
    return (options.mark_given && ((options.mark ^ va) & (PAGE - 1)) == 0) ||
           is_place(&options.from, va) || is_place(&options.to, va);
}

/* Whether the instruction before the block, which may have run just before it, is a deferred one.
 * It lies in the four bytes before; what lies in another page is not looked at but assumed. */
static bool follows_deferred(struct qemu_plugin_tb *tb, const void *first)
{
    if ((qemu_plugin_tb_vaddr(tb) & (PAGE - 1)) < 4 || !first) {
        return true;
    }
    return deferred(decode(word_at((const uint8_t *)first - 4)).op);
}

static void instrument_fetch(struct qemu_plugin_insn *insn, struct site site, bool counted)
{
    const uint8_t *host = qemu_plugin_insn_haddr(insn);
    if (!host || (uint64_t)(host - ram.bytes) >= ram.size) {
        return;
    }
    size_t size = qemu_plugin_insn_size(insn);
    union packed_fetch fetch = {.site = {.page = ((host - ram.bytes) >> PAGE_BITS) + 1,
                                         .class = site.class,
                                         .priv = site.priv,
                                         .block = site.block / 2,
                                         .offset = site.offset / 2,
                                         .wide = size > 2,
                                         .counted = counted}};
    /* One that goes on in the next page (it is a block's first) is always looked at. */
    bool always = options.filter == 0 ||
                  (qemu_plugin_insn_vaddr(insn) & (PAGE - 1)) + size > PAGE;
    qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, on_fetch, CB_READS_REGISTERS, COND_NE,
                                                COUNTER(fetch_page),
                                                always ? ~0ull : fetched_from(fetch.site),
                                                fetch.data);
}

static void on_translate(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    if (!opened) {
        opened = true;
        if (!capture_open(vcpus)) {
            phase = DONE;
            stream_close();
        }
    }
    if (phase == DONE) {
        return;
    }
    uint64_t va = qemu_plugin_tb_vaddr(tb);
    size_t count = qemu_plugin_tb_n_insns(tb);
    unsigned priv = reg_read(REG_PRIV);
    struct site site = {.block = va & (PAGE - 1), .class = class_of(priv), .priv = priv};
    unsigned bit = site.block / 2;
    translated[bit / 64] |= 1ull << bit % 64;

    bool record = phase == ACTIVE;
    for (size_t i = 0; i < count && !record; i++) {
        record = may_be_place(qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, i)));
    }
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
    if (may_be_vector(va)) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_enter, CB_READS_REGISTERS,
                                             ((union packed_site){.site = site}).data);
    }
    bool after_deferred = record && follows_deferred(tb, qemu_plugin_insn_haddr(first));
    bool fetches = record && options.accesses && site.class != CLASS_M;
    unsigned uncounted = 0;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        struct insn what = decode(word_of(insn));
        site.offset = qemu_plugin_insn_vaddr(insn) - va;
        site.op = what.op;
        site.rd = what.rd;
        site.rs1 = what.rs1;
        site.rs2 = what.rs2;
        site.funct3 = what.funct3;
        site.detail = what.detail;
        void *data = ((union packed_site){.site = site}).data;
        bool place = may_be_place(va + site.offset);
        bool every = fetches && options.filter == 0;
        /* Count up to every instruction at which the count can be looked at: one that may trap,
         * call back, or end the block early. */
        bool counted = what.op != OP_PLAIN || i + 1 == count || place || every;
        uncounted++;
        if (counted) {
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD,
                                                                COUNTER(started), uncounted);
            uncounted = 0;
        }
        if (after_deferred) {
            qemu_plugin_register_vcpu_insn_exec_cond_cb(
                insn, on_next, CB_READS_REGISTERS, COND_NE, COUNTER(pending), 0, data);
        }
        after_deferred = record && deferred(what.op);
        if (place) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_place, CB_READS_REGISTERS, data);
        }
        /* Behind `on_place`: a mark comes before its instruction is fetched, and a region that
         * begins or ends there has the fetch or not.  Blocks lie in one page, so their first
         * instruction tells, and one at which the region may begin. */
        if (fetches && (i == 0 || place || every)) {
            instrument_fetch(insn, site, counted);
        }
        if (what.op == OP_RETURN || what.op == OP_VECTOR ||
            (record && (what.op == OP_FENCE || what.op == OP_ATP || what.op == OP_CBO_ZERO ||
                        (what.op == OP_STATUS && options.accesses)))) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_execute, CB_READS_REGISTERS, data);
        }
        /* Memory callbacks on cbo.zero would make QEMU clear the block byte by byte. */
        if (!record || what.op == OP_PLAIN || what.op == OP_CBO_ZERO) {
            continue;
        }
        bool guest_access = (word_of(insn) & 0x707f) == 0x4073; /* hlv, hsv */
        enum class class = guest_access ? CLASS_OTHER : site.class;
        struct site memory_site = site;
        memory_site.class = class;
        data = ((union packed_site){.site = memory_site}).data;
        memory_callback load = memory_callback_for(class, READ);
        if (load && what.op != OP_AMO && what.op != OP_SC) {
            qemu_plugin_register_vcpu_mem_cb(insn, load, CB_NO_REGISTERS, MEMORY_READ, data);
        }
        qemu_plugin_register_vcpu_mem_cb(insn, memory_callback_for(class, WRITE),
                                         CB_NO_REGISTERS, MEMORY_WRITE, data);
    }
}

/* -- life --------------------------------------------------------------------------------------- */

static void on_machine_exit(uint64_t id, void *data)
{
    (void)id;
    (void)data;
    capture_close();
}

static void on_hart_begins(uint64_t id, unsigned vcpu)
{
    (void)id;
    (void)vcpu;
    find_counters();
}

static void register_callbacks(uint64_t id)
{
    renewing = false;
    memset(translated, 0, sizeof(translated));
    if (phase == DONE) {
        return;
    }
    qemu_plugin_register_vcpu_init_cb(id, on_hart_begins);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_idle_cb(id, on_idle);
    qemu_plugin_register_atexit_cb(id, on_machine_exit, NULL);
}

void translate_anew(void)
{
    if (!renewing) {
        renewing = true;
        qemu_plugin_reset(plugin_id, register_callbacks);
    }
}

/* -- options ------------------------------------------------------------------------------------ */

static bool parse_limit(const char *text, struct limit *limit)
{
    char *end = NULL;
    if (strcmp(text, "boot") == 0) {
        limit->kind = AT_BOOT;
        return true;
    }
    if (strcmp(text, "request") == 0) {
        limit->kind = AT_REQUEST;
        return true;
    }
    if (strcmp(text, "end") == 0) {
        limit->kind = AT_NOTHING;
        return true;
    }
    if (strncmp(text, "mark:", 5) == 0 && strlen(text + 5) < sizeof(limit->label)) {
        limit->kind = AT_MARK;
        strcpy(limit->label, text + 5);
        return true;
    }
    if (strncmp(text, "pc:", 3) == 0) {
        limit->kind = AT_PC;
        limit->pc = strtoull(text + 3, &end, 0);
        return *end == 0;
    }
    return false;
}

static bool parse_option(const char *argument)
{
    const char *value = strchr(argument, '=');
    if (!value) {
        return false;
    }
    size_t length = value++ - argument;
    char *end = "";
#define IS(name) (length == strlen(name) && strncmp(argument, name, length) == 0)
    if (IS("fd")) {
        options.fd = strtol(value, &end, 0);
    } else if (IS("ram")) {
        options.ram_name = value;
    } else if (IS("base")) {
        options.ram_base = strtoull(value, &end, 0);
    } else if (IS("size")) {
        options.ram_size = strtoull(value, &end, 0);
    } else if (IS("filter")) {
        options.filter = strtoul(value, &end, 0);
        return *end == 0 && options.filter <= FAST_SLOTS &&
               (options.filter & (options.filter - 1)) == 0;
    } else if (IS("accesses")) {
        options.accesses = strcmp(value, "all") == 0;
        return options.accesses || strcmp(value, "none") == 0;
    } else if (IS("from")) {
        return parse_limit(value, &options.from);
    } else if (IS("to")) {
        return parse_limit(value, &options.to);
    } else if (IS("mark")) {
        options.mark_given = true;
        options.mark = strtoull(value, &end, 0);
    } else if (IS("markpriv")) {
        options.mark_priv = strcmp(value, "any") == 0 ? ANY_PRIVILEGE : PRIV_U;
    } else if (IS("off")) {
        options.off_switch = strtoull(value, &end, 0);
    } else if (IS("cboz")) {
        options.cbo_block = strtoul(value, &end, 0);
        return *end == 0 && options.cbo_block > 0 && options.cbo_block <= PAGE &&
               (options.cbo_block & (options.cbo_block - 1)) == 0;
    } else {
        return false;
    }
#undef IS
    return *end == 0;
}

/*
 * With -icount, or on one thread by request, QEMU 10 translates for one hart what all harts run:
 * callbacks and counters get the wrong hart.
 */
static bool runs_harts_in_turn(void)
{
    static char line[1 << 16];
    FILE *file = fopen("/proc/self/cmdline", "re");
    size_t length = file ? fread(line, 1, sizeof(line) - 1, file) : 0;
    bool found = false;
    if (file) {
        fclose(file);
    }
    for (char *word = line; word < line + length; word += strlen(word) + 1) {
        found |= strcmp(word, "-icount") == 0 || strstr(word, "thread=single") != NULL;
    }
    return found;
}

COSIM_EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc,
                                     char **argv)
{
    plugin_id = id;
    if (argc == 1 && strcmp(argv[0], "probe=on") == 0) {
        printf("cosim plugin: loaded\n");
        fflush(stdout);
        return 1;
    }
    options = (struct options){
        .fd = -1, .cbo_block = 64, .filter = FAST_SLOTS / 2, .from = {.kind = AT_BOOT}};
    for (int i = 0; i < argc; i++) {
        if (!parse_option(argv[i])) {
            fprintf(stderr, "cosim plugin: bad option %s\n", argv[i]);
            return 1;
        }
    }
    if (strcmp(info->target, "riscv64") != 0 || !info->system ||
        info->machine.vcpus_max > MAX_HARTS) {
        fprintf(stderr, "cosim plugin: this is no riscv64 machine of at most %d harts\n",
                MAX_HARTS);
        return 1;
    }
    if (info->machine.vcpus_max > 1 && runs_harts_in_turn()) {
        fprintf(stderr, "cosim plugin: with -icount (and record and replay) QEMU's plugins see one "
                        "hart only: use one hart, or live time\n");
        return 1;
    }
    if (options.fd < 0 || !options.ram_name || options.ram_size == 0 || options.from.kind == AT_NOTHING ||
        options.to.kind == AT_BOOT) {
        fprintf(stderr, "cosim plugin: options are missing or make no sense\n");
        return 1;
    }
    vcpus = info->machine.vcpus_max;
    phase = options.from.kind == AT_BOOT ? ACTIVE : WAITING;
    counters = qemu_plugin_scoreboard_new(sizeof(struct hart_counters));
    stream_open(options.fd, all_instructions);
    register_callbacks(id);
    return 0;
}
