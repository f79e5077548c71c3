/*
 * The event record and its vocabulary: hypervisor_model/events.py in C (tests hold them equal).
 */
#ifndef COSIM_EVENT_H
#define COSIM_EVENT_H

#include <stdint.h>

struct event {
    int64_t icount, pc, a, b, c;
    uint8_t kind, sub, hart, priv, flags, size;
    uint16_t reserved;
};
_Static_assert(sizeof(struct event) == 48, "the record is 48 bytes");

enum { SIZE_MORE = 255 }; /* `size`: so many bytes, or more */

enum kind {
    TABLE_ADD = 1,
    TABLE_ENTRY,
    TABLE_DROP,
    PTE_WRITE,
    FENCE,
    SATP_WRITE,
    ACCESS,
    PAGE_FAULT,
    MARK
};
enum pte_op { BY_STORE, BY_AMO, BY_SC, BY_CBO_ZERO, BY_OTHER };
enum fence_form { FORM_VA = 1, FORM_ASID = 2 };
enum fence_instruction {
    SFENCE_VMA = 0 << 2,
    SINVAL_VMA = 1 << 2,
    HFENCE_VVMA = 2 << 2,
    HFENCE_GVMA = 3 << 2,
    HINVAL_VVMA = 4 << 2,
    HINVAL_GVMA = 5 << 2
};
enum satp { SATP, VSATP, HGATP };
enum access { READ, WRITE, FETCH };
enum privilege { PRIV_U = 0, PRIV_S = 1, PRIV_M = 3, PRIV_VIRT = 4 };
enum flag { FLAG_CONT = 1, FLAG_SUM = 2, FLAG_MXR = 4, FLAG_STOP = 8 };

/* Where and when an event happened: what every event of one instruction shares. */
struct stamp {
    int64_t icount, pc;
    uint8_t hart, priv;
};

#endif
