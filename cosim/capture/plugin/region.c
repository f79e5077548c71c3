#include "region.h"

#include "count.h"
#include "effects.h"
#include "guest.h"
#include "options.h"
#include "processes.h"
#include "stream.h"
#include "tables.h"
#include "translation.h"
#include "vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char (*labels)[33];
static unsigned label_count;
static uint64_t first_instruction; /* of the region */

enum place { PLACE_BEGIN, PLACE_END };

/* Say exactly where an edge of the region is, so that a replay of the same run can be sent there:
 * before the instruction at `pc`. */
static void tell_place(enum place place, uint64_t pc)
{
    enum { GENERAL = 3 };
    uint64_t payload[GENERAL + 33] = {place, qemu_instructions() - 1, all_instructions() - 1};
    for (int i = 1; i < 32; i++) {
        payload[GENERAL + i] = reg_read(i);
    }
    payload[GENERAL + 32] = pc;
    stream_block(BLOCK_PLACE, payload, sizeof(payload));
}

/* How many instructions had retired at each instruction that QEMU's own count includes and that did
 * not retire.  So the tool can turn the count of an event into QEMU's. */
static uint64_t calls[4096];
static unsigned call_count;

static void send_calls(void)
{
    if (call_count > 0) {
        stream_block(BLOCK_CALLS, calls, call_count * sizeof(*calls));
    }
    call_count = 0;
}

void note_call(void)
{
    if (phase != ACTIVE || hart_count > 1) {
        return; /* before the region their number is enough; of several harts there is no recording */
    }
    if (call_count == sizeof(calls) / sizeof(*calls)) {
        send_calls();
    }
    calls[call_count++] = all_instructions();
}

enum end_reason { END_OF_MACHINE, END_OF_REGION };

static void end_region(enum end_reason reason, uint64_t instructions, const struct stamp *at)
{
    tables_hardware_updates(at);
    if (options.devices) {
        tables_device_writes(at);
    }
    struct audit audit = tables_audit();
    send_calls();
    for (unsigned hart = 0; hart < hart_count; hart++) {
        process_leaves(harts[hart].satp);
    }
    uint64_t end[] = {reason,        phase == WAITING, stream_events(), instructions,
                      audit.pages,   audit.entries,    audit.differ,    audit.hardware_ad};
    stream_block(BLOCK_END, end, sizeof(end));
    stream_close();
    phase = DONE;
}

static void end_region_here(const struct stamp *at)
{
    tell_place(PLACE_END, at->pc);
    end_region(END_OF_REGION, all_instructions() - 1 - first_instruction, at);
    translate_anew();
}

static void end_with_machine(const struct stamp *at)
{
    end_region(END_OF_MACHINE, phase == ACTIVE ? all_instructions() - first_instruction : 0, at);
}

void machine_ends(const struct stamp *at)
{
    end_with_machine(at);
    translate_anew();
}

static void begin_region(unsigned vcpu, const struct stamp *at)
{
    phase = ACTIVE;
    first_instruction = all_instructions() - 1;
    tell_place(PLACE_BEGIN, at->pc);
    if (!(at->priv & PRIV_VIRT)) {
        begin_hart(vcpu, at);
    }
    translate_anew();
}

void take_requests(unsigned vcpu, struct site site)
{
    /* Every guest returns from a trap every few milliseconds, which is often enough for
     * requests. */
    bool waits = phase == WAITING && options.from.kind == AT_REQUEST;
    bool ends = phase == ACTIVE && options.to.kind == AT_REQUEST;
    if (!waits && !ends) {
        return;
    }
    enum request request = stream_request();
    if (waits && request == REQUEST_BEGIN) {
        struct stamp at = stamp_of(vcpu, site);
        begin_region(vcpu, &at);
    } else if (ends && request == REQUEST_END) {
        struct stamp at = stamp_of(vcpu, site);
        settle(vcpu);
        end_region_here(&at);
    }
}

static int label_number(const char *label)
{
    for (unsigned i = 0; i < label_count; i++) {
        if (strcmp(labels[i], label) == 0) {
            return i;
        }
    }
    labels = realloc(labels, (label_count + 1) * sizeof(*labels));
    if (!labels) {
        abort();
    }
    strcpy(labels[label_count], label);
    stream_block(BLOCK_LABEL, label, strlen(label));
    return label_count++;
}

static bool is_at(const struct limit *limit, uint64_t pc, const char *label)
{
    return (limit->kind == AT_PC && pc == limit->pc) ||
           (limit->kind == AT_MARK && label && strcmp(label, limit->label) == 0);
}

/* Return true ten times a second at most, since `last` is when it did so. */
static bool is_time(struct timespec *last)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    long passed = (now.tv_sec - last->tv_sec) * 1000 + (now.tv_nsec - last->tv_nsec) / 1000000;
    if (passed <= 100) {
        return false;
    }
    *last = now;
    return true;
}

static bool is_time_to_flush(void)
{
    static struct timespec last;
    return is_time(&last);
}

void take_stop(unsigned vcpu)
{
    static struct timespec last;
    if (phase != DONE && is_time(&last) && stream_next_request() == REQUEST_STOP) {
        struct stamp at = stamp_now(vcpu);
        machine_ends(&at);
    }
}

void on_place(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct site site = ((union packed_site){.data = data}).site;
    uint64_t pc = pc_of(site);
    char text[33] = "";
    const char *label = NULL;
    if (is_mark_of(site.priv) && pc == options.mark) {
        for (int i = 0; i < 4; i++) {
            uint64_t word = reg_read(10 + i);
            memcpy(text + 8 * i, &word, 8);
        }
        label = text;
    } else if (!is_at(&options.from, pc, NULL) && !is_at(&options.to, pc, NULL)) {
        return; /* it has only the offset of one */
    }
    in_block(site.rest);
    struct stamp at = stamp_of(vcpu, site);
    if (phase == WAITING && is_at(&options.from, pc, label)) {
        begin_region(vcpu, &at);
    }
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    if (is_at(&options.to, pc, label)) {
        end_region_here(&at);
    } else if (label) {
        int number = label_number(label);
        emit(KIND_MARK, &at)->a = number;
        /* Each batch costs the reader a millisecond, however few events it has. */
        if (is_time_to_flush()) {
            stream_flush();
        }
    }
}

void on_idle(uint64_t id, unsigned vcpu)
{
    (void)id;
    (void)vcpu;
    in_block(0);
    if (phase == ACTIVE && is_time_to_flush()) {
        stream_flush();
    }
}

bool capture_open(unsigned vcpus)
{
    if (!ram_find(options.ram_name, options.ram_base, options.ram_size) || !registers_find()) {
        return false;
    }
    harts_open(vcpus);
    turns_find();
    if (vcpus == 1) {
        count_find();
    }
    hart_runs(vcpus > 1 ? reg_read(REG_MHARTID) : 0);
    learn_vectors();
    if (phase == ACTIVE && vcpus == 1) {
        struct stamp at = stamp_now(0);
        begin_hart(0, &at);
    }
    return true;
}

void capture_close(void)
{
    if (phase != DONE) {
        /* No hart runs now, so nobody knows a pc. */
        in_block(0);
        struct stamp at = {.icount = all_instructions()};
        end_with_machine(&at);
    }
}
