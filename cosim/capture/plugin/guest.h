/*
 * The guest as the capture sees it: its RAM, its harts' registers, a walk of its tables.
 */
#ifndef COSIM_GUEST_H
#define COSIM_GUEST_H

#include "qemu_api.h"

enum { PAGE_BITS = 12, PAGE = 1 << PAGE_BITS, ENTRIES = 512, MAX_LEVELS = 5, MAX_HARTS = 16 };

enum pte_bit {
    PTE_V = 1 << 0,
    PTE_R = 1 << 1,
    PTE_W = 1 << 2,
    PTE_X = 1 << 3,
    PTE_U = 1 << 4,
    PTE_G = 1 << 5,
    PTE_A = 1 << 6,
    PTE_D = 1 << 7
};
#define PTE_RESERVED (0x7full << 54)
#define PTE_NOT_IN_LINK                                                                           \
    (PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D | (0x3ffull << 54))

struct ram {
    const uint8_t *bytes; /* QEMU's own mapping; only ever read */
    uint64_t base, size;
};
extern struct ram ram;

/* Find guest RAM in this process by the name of its mapping; false, after a line on stderr, if
 * it is not there. */
bool ram_find(const char *name, uint64_t base, uint64_t size);

static inline bool ram_holds(uint64_t pa)
{
    return pa - ram.base < ram.size;
}

static inline uint64_t ram_word(uint64_t pa)
{
    return *(const uint64_t *)(ram.bytes + (pa - ram.base));
}

static inline uint64_t pte_target(uint64_t entry)
{
    return (entry >> 10 & ((1ull << 44) - 1)) << PAGE_BITS;
}

static inline bool pte_is_link(uint64_t entry)
{
    return (entry & (PTE_V | PTE_NOT_IN_LINK)) == PTE_V && ram_holds(pte_target(entry));
}

static inline bool pte_is_leaf(uint64_t entry)
{
    return (entry & PTE_V) && (entry & (PTE_R | PTE_X));
}

/* Levels of the tree that an atp register's mode field names; 0 = Bare (or unknown to us). */
static inline int atp_levels(uint64_t atp)
{
    unsigned mode = atp >> 60;
    return mode >= 8 && mode <= 10 ? (int)mode - 5 : 0;
}

static inline uint64_t atp_root(uint64_t atp)
{
    return (atp & ((1ull << 44) - 1)) << PAGE_BITS;
}

struct walk {
    bool ok;
    uint64_t pa;
    uint64_t path[MAX_LEVELS]; /* pages of the tables that it read, by their level; 0 = none */
    int levels;                /* of the tree; 0 if translation is Bare */
    int last;                  /* level of the last entry that it read */
    uint64_t entry;            /* and what that is: the leaf, or what stopped the walk */
    unsigned bits;             /* log2 of the size of what the leaf maps */
};
/* Translate `va` by the tables in RAM as they are now (one stage; permissions ignored).  `walk` is
 * filled in where it is, because to copy it would take half as long again. */
void guest_walk(struct walk *walk, uint64_t atp, uint64_t va);

enum reg {
    REG_PC = 32, /* 0..31 are x0..x31 */
    REG_PRIV,
    REG_SATP,
    REG_VSATP,
    REG_HGATP,
    REG_STVEC,
    REG_MTVEC,
    REG_SCAUSE,
    REG_STVAL,
    REG_SEPC,
    REG_MCAUSE,
    REG_MEPC,
    REG_MTVAL,
    REG_SSTATUS,
    REG_MSTATUS,
    REG_HSTATUS,
    REG_MENVCFG,
    REG_HENVCFG,
    REG_MHARTID,
    REG_COUNT
};
/* Look up the registers, in a vCPU's thread; false if one is missing that every hart has. */
bool registers_find(void);
/* The value of a register of the running hart; 0 if it lacks the register. */
uint64_t reg_read(int reg);

/* Find out how to tell harts apart, in the thread that runs them all. */
void turns_find(void);
/* Return true if the same hart runs as when this was last asked.  It is cheap if QEMU shows which
 * vCPU runs. */
bool same_hart_runs(void);
/* Let the next hart run after this block.  It does nothing if QEMU does not show how. */
void end_turn(void);

#endif
