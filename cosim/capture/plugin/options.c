#include "options.h"

#include "event.h"
#include "filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options;

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

static bool parse_processes(const char *text, struct process_layout *layout)
{
    unsigned long long init_task;
    int end = 0;
    int fields = sscanf(text, "%llx:%u:%u:%u:%u:%u%n", &init_task, &layout->tasks, &layout->mm,
                        &layout->pid, &layout->comm, &layout->pgd, &end);
    layout->init_task = init_task;
    layout->given = fields == 6 && text[end] == 0;
    return layout->given;
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
    } else if (IS("firmware")) {
        options.firmware = strcmp(value, "on") == 0;
        return options.firmware || strcmp(value, "off") == 0;
    } else if (IS("processes")) {
        return parse_processes(value, &options.processes);
    } else if (IS("off")) {
        options.off_switch = strtoull(value, &end, 0);
    } else if (IS("switches")) {
        options.switches = strtoull(value, &end, 0);
    } else if (IS("paging")) {
        options.paging = strtoull(value, &end, 0);
    } else if (IS("devices")) {
        options.devices = strtoul(value, &end, 0);
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

bool options_parse(int argc, char **argv)
{
    options = (struct options){
        .fd = -1, .cbo_block = 64, .filter = FAST_SLOTS / 2, .from = {.kind = AT_BOOT}};
    for (int i = 0; i < argc; i++) {
        if (!parse_option(argv[i])) {
            fprintf(stderr, "cosim plugin: bad option %s\n", argv[i]);
            return false;
        }
    }
    if (options.fd < 0 || !options.ram_name || options.ram_size == 0 ||
        options.from.kind == AT_NOTHING || options.to.kind == AT_BOOT) {
        fprintf(stderr, "cosim plugin: options are missing or contradict each other\n");
        return false;
    }
    return true;
}
