/*
 * Holds what is known of each hart while the guest runs: its state, its counters, its place in the
 * code.
 */
#ifndef COSIM_HART_H
#define COSIM_HART_H

#include "decode.h"
#include "guest.h"
#include "site.h"
#include "tables.h"

enum phase { WAITING, ACTIVE, DONE };
/* Of the region. */
extern enum phase phase;

/* Per vCPU, in a scoreboard: what generated code itself reads and writes. */
struct hart_counters {
    uint64_t started;    /* instructions that began; without those that trapped: retired */
    uint64_t pending;    /* not 0: an instruction's effect waits to be looked at */
    uint64_t fetch_page; /* fetched_from the last page fetched from; 0: look at the next fetch */
};
extern struct qemu_plugin_scoreboard *counters;

/* An executed instruction whose effect is looked at before the next one. */
struct pending {
    enum op op;
    struct site site;
    struct stamp at;
    uint64_t before;      /* ATP, ENVCFG: the register's old value; FENCE: the address */
    uint64_t operand;     /* FENCE: the ASID; cbo.zero: the address */
    struct part parts[2]; /* sc */
    int part_count;
    unsigned size;
};

struct hart {
    bool begun; /* it has executed something in the region with V=0; only then satp is its own */
    bool mxr;
    uint64_t satp;
    uint64_t envcfg[2]; /* of menvcfg and henvcfg: the bits that are switches */
    uint64_t fetched; /* virtual address of the page last fetched from, if accesses are events */
    uint64_t returned, returned_from; /* `started` and pc at the last sret or mret */
    uint64_t calls; /* instructions that trapped and that QEMU's own count includes */
    struct pending pending;
};
extern struct hart harts[MAX_HARTS];
extern unsigned hart_count;

/* Guest RAM and the registers are known: get ready for this many harts. */
void harts_open(unsigned count);
/* Call this when a hart begins to run: its counters may move. */
void find_counters(void);
struct hart_counters *counters_of(unsigned vcpu);
/* Instructions retired by all harts. */
int64_t all_instructions(void);
/* The same as QEMU's record and replay counts them: with instructions whose purpose is to trap.
 * QEMU also includes instructions that do not exist, which this does not: it is a lower bound. */
int64_t qemu_instructions(void);

/* pc of an instruction of the running block. */
uint64_t pc_of(struct site site);
/* The stamp of the instruction that began last. */
struct stamp stamp_of(unsigned vcpu, struct site site);
/* The same for a data access, if accesses are events.  It takes the pc from the last fetch, because
 * asking QEMU for the pc costs as much as everything else that is done for an access. */
struct stamp stamp_of_access(unsigned vcpu, struct site site);
/* The stamp of the instruction that is about to begin. */
struct stamp stamp_now(unsigned vcpu);
/* Take in what menvcfg or henvcfg (enum envcfg) of the hart holds.  Return true if a switch has
 * moved. */
bool envcfg_is(unsigned vcpu, enum envcfg which, uint64_t value);
/* Return true if an MMU may set A and D in entries: ADUE of some hart. */
bool mmu_sets_ad(void);
/* Look at the next fetch of every hart. */
void forget_fetched(void);

/* The hart's part of the region begins: it tells its `satp` and the tables under it. */
void begin_hart(unsigned vcpu, const struct stamp *at);
/* Return true if the callback has something to record.  Then the lock is held until `leave`. */
bool enter(unsigned vcpu);
void leave(void);
/* Take only the lock, for what is followed outside of the region too. */
void lock_harts(void);

#endif
