/*
 * The callbacks that QEMU runs while the guest executes, and the region they record.
 */
#ifndef COSIM_CAPTURE_H
#define COSIM_CAPTURE_H

#include "decode.h"
#include "filter.h"
#include "stream.h"
#include "tables.h"

/*
 * What the translator knows of an instruction, packed into the 64 bits of a callback's data.  The
 * pc is left out on purpose: QEMU shares translated code between virtual aliases of a page, so
 * only offsets are known.
 */
struct site {
    uint64_t block : 12;  /* address of the first instruction of its block, within the page */
    uint64_t offset : 12; /* bytes from there to it */
    uint64_t op : 4;      /* enum op */
    uint64_t class : 3;   /* enum class */
    uint64_t priv : 3;    /* enum privilege */
    uint64_t rd : 5, rs1 : 5, rs2 : 5;
    uint64_t funct3 : 3;
    uint64_t detail : 12;
};
union packed_site {
    struct site site;
    void *data;
};
_Static_assert(sizeof(union packed_site) == sizeof(void *), "a site fits a pointer");

/* What an instruction is fetched from, and which one it is, packed likewise. */
struct fetch_site {
    uint64_t page : 32; /* number of the physical page within RAM, plus 1 */
    uint64_t class : 3;
    uint64_t priv : 3;
    uint64_t block : 11;  /* as in a site, but in halfwords */
    uint64_t offset : 11;
    uint64_t wide : 1;    /* 4 bytes, not 2 */
    uint64_t counted : 1; /* `started` holds it when it is called back for */
};
union packed_fetch {
    struct fetch_site site;
    void *data;
    uint64_t word;
};
_Static_assert(sizeof(union packed_fetch) == sizeof(void *), "a fetch site fits a pointer");

/* The part of it that a hart's next fetches are compared with; never 0. */
static inline uint64_t fetched_from(struct fetch_site site)
{
    union packed_fetch from = {
        .site = {.page = site.page, .class = site.class, .priv = site.priv}};
    return from.word;
}

/* One end of a region. */
struct limit {
    enum { AT_NOTHING, AT_BOOT, AT_MARK, AT_PC, AT_REQUEST } kind;
    uint64_t pc;
    char label[33];
};

enum { ANY_PRIVILEGE = -1 };

struct options {
    int fd;
    const char *ram_name; /* what QEMU's mapping of RAM is called in /proc/self/maps */
    uint64_t ram_base, ram_size;
    bool accesses;   /* whether they are events */
    unsigned filter; /* slots; 0: none, every access is an event */
    struct limit from, to;
    bool mark_given;
    uint64_t mark;
    int mark_priv; /* U, or ANY_PRIVILEGE */
    unsigned cbo_block;
    uint64_t off_switch; /* physical address of the device that ends the machine; 0: none */
};
extern struct options options;

enum phase { WAITING, ACTIVE, DONE };
extern enum phase phase;

/* Per vCPU, in a scoreboard: what generated code itself reads and writes. */
struct hart_counters {
    uint64_t started;    /* instructions that began; minus those that trapped: retired */
    uint64_t pending;    /* not 0: an instruction's effect waits to be looked at */
    uint64_t fetch_page; /* fetched_from the last page fetched from; 0: to be looked at again */
};
extern struct qemu_plugin_scoreboard *counters;
/* To be called whenever a hart begins to run. */
void find_counters(void);

/* Whether a store to `pa` is one to the device that ends the machine. */
static inline bool is_off_switch(uint64_t pa)
{
    return options.off_switch && pa == options.off_switch;
}

/* False when guest RAM is not found; called when the first code is translated. */
bool capture_open(unsigned harts);
void capture_close(void);
/* Instructions retired by all harts. */
int64_t all_instructions(void);
/* Provided by the plugin: translate all code anew, as the phase or the vectors have changed. */
void translate_anew(void);
/* Provided by the plugin: whether code that begins at this offset in its page was translated. */
bool is_translated(uint64_t va);
/* Whether a trap may enter at a block that begins at this offset in its page. */
bool may_be_vector(uint64_t va);
/* Learn the vectors that the running hart has set already. */
void learn_vectors(void);

memory_callback memory_callback_for(enum class class, enum access kind);
void on_execute(unsigned vcpu, void *data); /* before fences, CSR writes, cbo.zero, returns */
void on_next(unsigned vcpu, void *data);    /* before the instruction after a deferred one */
void on_enter(unsigned vcpu, void *data);   /* a block that may be a trap's first */
void on_fetch(unsigned vcpu, void *data);   /* the page fetched from changed, or no filter */
void on_place(unsigned vcpu, void *data);   /* an instruction that may be a mark or a limit */
void on_idle(uint64_t id, unsigned vcpu);

#endif
