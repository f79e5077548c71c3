/*
 * QEMU enters here.  Decides what each translated instruction calls back.
 */
#include "calls.h"
#include "count.h"
#include "decode.h"
#include "execute.h"
#include "fetch.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "memory.h"
#include "options.h"
#include "region.h"
#include "stream.h"
#include "translation.h"
#include "traps.h"
#include "turns.h"
#include "vectors.h"

#include <stdio.h>
#include <string.h>

COSIM_EXPORT int qemu_plugin_version = COSIM_API_VERSION;

static unsigned vcpus;
static bool opened;

/*
 * Several harts take turns in one thread (-accel tcg,thread=single).  QEMU 10 then makes the code of
 * a block for the vCPU that translates it, whichever runs it: callbacks get that vCPU's number, and
 * what generated code does with a scoreboard is wrong for all vCPUs but the first.  So with several
 * harts nothing uses either: `on_block` finds out which hart runs, and calls replace scoreboards.
 */
static struct counter counter(size_t offset)
{
    return (struct counter){.board = counters, .offset = offset};
}
#define COUNTER(member) counter(offsetof(struct hart_counters, member))

/* -- translation ------------------------------------------------------------------------------ */

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

/* QEMU translates a block for one privilege, SUM and MPRV: what holds now holds when it runs. */
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

/* Return true if the instruction at `va` may, by its offset in its page, be a mark or a limit. */
static bool may_be_place(uint64_t va, unsigned priv)
{
    return (is_mark_of(priv) && ((options.mark ^ va) & (PAGE - 1)) == 0) ||
           is_place(&options.from, va) || is_place(&options.to, va);
}

/* Return true if the instruction in front of the block, which may have run just before it, is a
 * deferred one.  It lies in the four bytes before.  If they lie in another page, the answer is
 * yes. */
static bool follows_deferred(struct qemu_plugin_tb *tb, const void *first)
{
    if ((qemu_plugin_tb_vaddr(tb) & (PAGE - 1)) < 4 || !first) {
        return true;
    }
    return deferred(decode(word_at((const uint8_t *)first - 4)).op);
}

static void instrument_fetch(struct qemu_plugin_insn *insn, struct site site)
{
    const uint8_t *host = qemu_plugin_insn_haddr(insn);
    if (!host || (uint64_t)(host - ram.bytes) >= ram.size) {
        return;
    }
    size_t size = qemu_plugin_insn_size(insn);
    union packed_fetch fetch = {.site = {.page = ((host - ram.bytes) >> PAGE_BITS) + 1,
                                         .class = site.class,
                                         .priv = site.priv,
                                         .block = site.block,
                                         .offset = site.offset,
                                         .rest = site.rest,
                                         .wide = size > 2}};
    /* A block's first instruction may continue in the next page.  Its fetch is always looked at. */
    bool always = options.filter == 0 ||
                  (qemu_plugin_insn_vaddr(insn) & (PAGE - 1)) + size > PAGE;
    if (always || vcpus > 1) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, always ? on_fetch : on_fetch_of_several,
                                               CB_READS_REGISTERS, fetch.data);
    } else {
        qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, on_other_page, CB_READS_REGISTERS, COND_NE,
                                                    COUNTER(fetch_page), fetched_from(fetch.site),
                                                    fetch.data);
    }
}

static void instrument_count(struct qemu_plugin_insn *insn, uintptr_t instructions)
{
    if (vcpus > 1) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_count, CB_NO_REGISTERS,
                                               (void *)instructions);
    } else {
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD, COUNTER(started),
                                                            instructions);
    }
}

static void instrument_next(struct qemu_plugin_insn *insn, void *data)
{
    if (vcpus > 1) {
        qemu_plugin_register_vcpu_insn_exec_cb(insn, on_next, CB_READS_REGISTERS, data);
    } else {
        qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, on_next, CB_READS_REGISTERS, COND_NE,
                                                    COUNTER(pending), 0, data);
    }
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
    note_translated(va);

    bool record = phase == ACTIVE;
    for (size_t i = 0; i < count && !record; i++) {
        record = may_be_place(qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, i)), priv);
    }
    struct site site = {.block = (va & (PAGE - 1)) / 2,
                        .rest = count - 1,
                        .class = record ? class_of(priv) : CLASS_OTHER,
                        .priv = priv};
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0);
    if (vcpus > 1) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, CB_READS_REGISTERS, NULL);
    }
    if (may_be_vector(va)) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_enter, CB_READS_REGISTERS,
                                             ((union packed_site){.site = site}).data);
    }
    bool after_deferred = record && follows_deferred(tb, qemu_plugin_insn_haddr(first));
    /* M-mode fetches by physical address, whatever MPRV says of its loads and stores. */
    bool fetches = record && options.accesses && priv != PRIV_M;
    unsigned uncounted = 0;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint32_t word = word_of(insn);
        struct insn what = decode(word);
        site.offset = (qemu_plugin_insn_vaddr(insn) - va) / 2;
        site.rest = count - 1 - i;
        site.op = what.op;
        site.rd = what.rd;
        site.rs1 = what.rs1;
        site.rs2 = what.rs2;
        site.funct3 = what.funct3;
        site.detail = what.detail;
        void *data = ((union packed_site){.site = site}).data;
        bool place = may_be_place(va + 2 * site.offset, priv);
        bool behind_deferred = after_deferred;
        /* A block lies in one page, so it is enough to look at its first instruction, at one where the
         * region may begin, and at one behind a fence, which may have emptied the page's slot. */
        bool fetched = fetches && (i == 0 || place || options.filter == 0 || behind_deferred);
        uncounted++;
        if (qemu_counts()) {
            if (i + 1 == count && !is_counted_right(word)) {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, on_last, CB_NO_REGISTERS, data);
            }
        } else if (what.op != OP_PLAIN || i + 1 == count || place || fetched) {
            /* The count must be right at every instruction that may trap, call back, or end the
             * block early. */
            instrument_count(insn, uncounted);
            uncounted = 0;
        }
        if (behind_deferred) {
            instrument_next(insn, data);
        }
        after_deferred = record && deferred(what.op);
        if (place) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_place, CB_READS_REGISTERS, data);
        }
        /* After `on_place`: a mark comes before its instruction is fetched, and `on_place` decides
         * whether the fetch is in the region. */
        if (fetched) {
            instrument_fetch(insn, site);
        }
        if (what.op == OP_RETURN || what.op == OP_VECTOR ||
            (record && (what.op == OP_FENCE || what.op == OP_ATP || what.op == OP_CBO_ZERO ||
                        what.op == OP_ENVCFG || what.op == OP_ORDER ||
                        (what.op == OP_STATUS && options.accesses)))) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_execute, CB_READS_REGISTERS, data);
        }
        if (record && what.op == OP_CALL && priv == PRIV_S && calls_are_followed()) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_call, CB_READS_REGISTERS, data);
        }
        if (qemu_counts() && what.op == OP_WAIT && site.rest > 0) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_wait, CB_NO_REGISTERS, data);
        }
        /* With memory callbacks on cbo.zero, QEMU would clear the block byte by byte. */
        if (!record || what.op == OP_PLAIN || what.op == OP_CBO_ZERO || what.op == OP_CALL) {
            continue;
        }
        enum class class = what.op == OP_GUEST ? CLASS_OTHER : site.class;
        struct site memory_site = site;
        memory_site.class = class;
        data = ((union packed_site){.site = memory_site}).data;
        memory_callback load = memory_callback_for(class, ACCESS_READ);
        if (load && what.op != OP_AMO && what.op != OP_SC) {
            qemu_plugin_register_vcpu_mem_cb(insn, load, CB_NO_REGISTERS, MEMORY_READ, data);
        }
        qemu_plugin_register_vcpu_mem_cb(insn, memory_callback_for(class, ACCESS_WRITE),
                                         CB_NO_REGISTERS, MEMORY_WRITE, data);
    }
}

/* -- life ------------------------------------------------------------------------------------- */

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
    if (phase == DONE) {
        return;
    }
    if (vcpus == 1) {
        qemu_plugin_register_vcpu_init_cb(id, on_hart_begins);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_idle_cb(id, on_idle);
    qemu_plugin_register_atexit_cb(id, on_machine_exit, NULL);
}

/* -- start ------------------------------------------------------------------------------------ */

/* Return true if QEMU runs all harts in one thread: -icount, or by request. */
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
    if (argc == 1 && strcmp(argv[0], "probe=on") == 0) {
        printf("cosim plugin: loaded\n");
        fflush(stdout);
        return 1;
    }
    if (!options_parse(argc, argv)) {
        return 1;
    }
    if (strcmp(info->target, "riscv64") != 0 || !info->system ||
        info->machine.vcpus_max > MAX_HARTS) {
        fprintf(stderr, "cosim plugin: needs a riscv64 machine of at most %d harts\n",
                MAX_HARTS);
        return 1;
    }
    if (info->machine.vcpus_max > 1 && !runs_harts_in_turn()) {
        fprintf(stderr, "cosim plugin: several harts need one thread for all, which gives their "
                        "events one order: -accel tcg,thread=single\n");
        return 1;
    }
    vcpus = info->machine.vcpus_max;
    phase = options.from.kind == AT_BOOT ? ACTIVE : WAITING;
    counters = qemu_plugin_scoreboard_new(sizeof(struct hart_counters));
    stream_open(options.fd, all_instructions);
    translation_open(id, register_callbacks);
    register_callbacks(id);
    return 0;
}
