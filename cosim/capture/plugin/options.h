/*
 * The options that the tool gives to the plugin.
 */
#ifndef COSIM_OPTIONS_H
#define COSIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* One end of a region. */
struct limit {
    enum { AT_NOTHING, AT_BOOT, AT_MARK, AT_PC, AT_REQUEST } kind;
    uint64_t pc;
    char label[33];
};

/* Where Linux keeps which process owns an address space: see cosim/capture/processes.py. */
struct process_layout {
    bool given;
    uint64_t init_task;                  /* virtual address */
    unsigned tasks, mm, pid, comm, pgd; /* offsets in bytes */
};

enum { ANY_PRIVILEGE = -1 };

struct options {
    int fd;
    const char *ram_name; /* the name of QEMU's mapping of RAM in /proc/self/maps */
    uint64_t ram_base, ram_size;
    bool accesses;   /* whether accesses become events */
    unsigned filter; /* slots of the access filter; 0: no filter, every access is an event */
    struct limit from, to;
    bool mark_given;
    uint64_t mark;
    int mark_priv; /* U, or ANY_PRIVILEGE */
    unsigned cbo_block;
    uint64_t switches; /* ADUE and PBMTE of menvcfg, as far as the CPU can switch them */
    uint64_t paging;   /* what these two are after reset, or always */
    bool devices;      /* whether devices may write to RAM */
    bool firmware; /* the guest runs in S-mode, and calls the firmware that runs in M-mode */
    struct process_layout processes;
    uint64_t off_switch; /* physical address of the device that ends the machine; 0: none */
};
extern struct options options;

/* Set `options`; false, after a line on stderr, if one is wrong or missing. */
bool options_parse(int argc, char **argv);

/* Return true if there is a mark, and it counts in this privilege. */
static inline bool is_mark_of(unsigned priv)
{
    return options.mark_given &&
           (options.mark_priv == ANY_PRIVILEGE || (int)priv == options.mark_priv);
}

/* Return true if a store to `pa` is a store to the device that ends the machine. */
static inline bool is_off_switch(uint64_t pa)
{
    return options.off_switch && pa == options.off_switch;
}

#endif
