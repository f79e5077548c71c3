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

/* What generated code itself reads and writes, if there is one hart. */
struct hart_counters {
    uint64_t started;    /* instructions that began; without those that trapped: retired.  Not used if
                          * QEMU counts */
    uint64_t pending;    /* not 0: an instruction's effect waits to be looked at */
    uint64_t fetch_page; /* fetched_from the last page fetched from; 0: look at the next fetch */
};
/* Those of the machine: all harts take turns, and `pending` and `fetch_page` are of the running one.
 * For one hart they are in a scoreboard. */
extern struct hart_counters *now;
extern struct qemu_plugin_scoreboard *counters;

/* An executed instruction whose effect is looked at before the next one. */
struct pending {
    enum op op;
    struct site site;
    struct stamp at;
    uint64_t before;      /* ATP, ENVCFG: the register's old value; FENCE: the address */
    uint64_t operand;     /* FENCE: the ASID; cbo.zero: the address */
    uint64_t written;     /* ATP: what the register will hold, if `sure` */
    bool sure;            /* several harts: it cannot trap */
    struct part parts[2]; /* sc, cbo.zero */
    int part_count;
    unsigned size;
};

/* A call of S-mode to its firmware that asks for a fence on other harts. */
struct call {
    bool made; /* and it has not returned yet */
    struct stamp at;
    unsigned sub;
    uint64_t first, size, asid;
    uint16_t harts;
};

struct hart {
    bool begun; /* it has executed something in the region with V=0; only then satp is its own */
    bool mxr;
    bool waits; /* `pending` holds an instruction */
    bool foretold; /* `satp` is what a write must have left; the hart has not run since */
    uint64_t satp;
    uint64_t envcfg[2]; /* of menvcfg and henvcfg: the bits that are switches */
    uint64_t fetched; /* virtual address of the page last fetched from, if accesses are events */
    uint64_t executed; /* instructions in the turns before this one */
    /* Of the last sret or mret: `executed_by` with it, its pc, and where it goes. */
    uint64_t returned, returned_from, returned_to;
    struct call call; /* its last call for a remote fence */
    uint64_t calls; /* instructions that trapped and that QEMU's own count includes */
    struct pending pending;
};
extern struct hart harts[MAX_HARTS];
extern unsigned hart_count;
/* The hart that runs.  The number that QEMU gives to callbacks may be another's. */
extern unsigned running;

/* Guest RAM and the registers are known: get ready for this many harts. */
void harts_open(unsigned count);
/* Call this when QEMU has made the only vCPU: its counters may have moved. */
void find_counters(void);
/* Instructions retired by all harts, and by one. */
int64_t all_instructions(void);
uint64_t executed_by(unsigned vcpu);
/* The last instruction that began did not retire.  Call it if QEMU does not count. */
void uncount(void);
/* The instruction in `pending` of the running hart is to be looked at before its next, or no more. */
void set_waits(bool waits);
/* Fetches like this one (fetched_from) need no look. */
void set_fetched(uint64_t from);
/* The hart that runs first. */
void hart_runs(unsigned hart);
/* From now on `next` runs. */
void take_turns(unsigned next);
/* The same as QEMU's record and replay counts them: with instructions whose purpose is to trap, with
 * those that do not exist, and with the rest of a block that a wfi leaves.  If QEMU does not show its
 * count, only the first are known, and this is a lower bound. */
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
/* Return true if the callback has something to record. */
bool enter(unsigned vcpu);

#endif
