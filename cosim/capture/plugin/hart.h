/*
 * What is known of each hart while the guest runs, and what the callbacks share: stamps, the lock,
 * the pending instruction.
 */
#ifndef COSIM_HART_H
#define COSIM_HART_H

#include "capture.h"

/* An executed instruction whose effect is looked at before the next one. */
struct pending {
    enum op op;
    struct site site;
    struct stamp at;
    uint64_t before;        /* ATP: the register's old value; FENCE: the address */
    uint64_t operand;       /* FENCE: the ASID; cbo.zero, vector stores: the address */
    struct part parts[2];   /* sc */
    int part_count;
    unsigned size;
};

struct hart {
    bool begun; /* it has executed something in the region, with V=0: only then is satp its own */
    bool mxr;
    uint64_t satp;
    uint64_t fetched; /* virtual address of the page last fetched from, where accesses are events */
    uint64_t returned, returned_from; /* `started` and pc at the last sret or mret */
    struct pending pending;
};
extern struct hart harts[MAX_HARTS];
extern unsigned hart_count;

struct hart_counters *counters_of(unsigned vcpu);
/* pc of an instruction of the running block. */
uint64_t pc_of(struct site site);
/* The stamp of the instruction that has begun last, and of the one that is about to. */
struct stamp stamp_of(unsigned vcpu, struct site site);
/* `stamp_of` an access while accesses are events: by what was fetched, since asking QEMU for the pc
 * costs as much as all else that is done for one. */
struct stamp stamp_of_access(unsigned vcpu, struct site site);
struct stamp stamp_now(unsigned vcpu);
/* What was fetched from is to be looked at again. */
void forget_fetched(void);

/* Whether the callback has something to record; holds the lock if so, until `leave`. */
bool enter(unsigned vcpu);
void leave(void);
/* The lock alone, for what is followed outside of the region too. */
void lock_harts(void);

/* Take in what the instruction before has done. */
void settle(unsigned vcpu);
/* The instruction's effect is looked at before the next one. */
struct pending *defer(unsigned vcpu, struct site site, const struct stamp *at);
/* An access was made, to QEMU's `pa`; becomes an event if accesses are and the filter passes it. */
void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
                  unsigned priv, uint64_t va, uint64_t pa, unsigned size);

/* Traps and returns from them. */
void return_begins(unsigned vcpu, struct site site);
void vector_begins(struct site site);

/* The region begins, or ends, before the running instruction; with the lock held. */
void begin_hart(unsigned vcpu, const struct stamp *at);
void begin_region(unsigned vcpu, const struct stamp *at);
void end_region_here(void);
/* The running instruction ends the machine. */
void machine_ends(void);
/* A return from a trap: the place to look for requests of the tool. */
void take_requests(unsigned vcpu, struct site site);

#endif
