/*
 * Decodes what a RISC-V instruction can do that the capture must see.  Encodings are those of the
 * unprivileged and privileged specifications (RV64 listings, C, A, CMO, V, Svinval, H).
 */
#ifndef COSIM_DECODE_H
#define COSIM_DECODE_H

#include "event.h"

#include <stdbool.h>

enum op {
    OP_PLAIN,     /* cannot touch memory, trap or be observed: arithmetic, branches, jumps */
    OP_OTHER,     /* anything not named here; may touch memory */
    OP_LOAD,      /* loads, lr */
    OP_STORE,
    OP_AMO,
    OP_SC,
    OP_CBO_ZERO,
    OP_VSTORE,
    OP_FENCE,     /* detail: enum fence, without the form */
    OP_ATP,       /* writes satp, vsatp or hgatp; detail: the CSR */
    OP_VECTOR,    /* writes stvec, mtvec or vstvec; detail: the CSR */
    OP_STATUS,    /* writes sstatus, mstatus or vsstatus; detail: the CSR */
    OP_RETURN,    /* sret, mret; detail: enum return_op */
    OP_GUEST,     /* hlv, hlvx, hsv: memory of a virtual machine */
    OP_ENVCFG,    /* writes menvcfg or henvcfg; detail: the CSR */
    OP_ORDER,     /* sfence.w.inval, sfence.inval.ir; detail: enum order */
    OP_CALL,      /* ecall */
    OP_WAIT       /* wfi */
};

/* CSRs whose writes are looked at. */
enum csr {
    CSR_OTHER,
    CSR_SSTATUS,
    CSR_STVEC,
    CSR_SATP,
    CSR_VSSTATUS,
    CSR_VSTVEC,
    CSR_VSATP,
    CSR_MSTATUS,
    CSR_MTVEC,
    CSR_MENVCFG,
    CSR_HENVCFG,
    CSR_HGATP,
    CSR_COUNT
};
static const uint16_t csr_addresses[CSR_COUNT] = {
    [CSR_SSTATUS] = 0x100,  [CSR_STVEC] = 0x105,   [CSR_SATP] = 0x180,    [CSR_VSSTATUS] = 0x200,
    [CSR_VSTVEC] = 0x205,   [CSR_VSATP] = 0x280,   [CSR_MSTATUS] = 0x300, [CSR_MTVEC] = 0x305,
    [CSR_MENVCFG] = 0x30a,  [CSR_HENVCFG] = 0x60a, [CSR_HGATP] = 0x680,
};

static inline enum csr csr_at(unsigned address)
{
    enum csr csr = CSR_COUNT - 1;
    while (csr != CSR_OTHER && csr_addresses[csr] != address) {
        csr--;
    }
    return csr;
}

enum return_op { SRET, MRET };

struct insn {
    enum op op;
    uint8_t rd, rs1, rs2, funct3, detail;
};

/* Decode the 2 or 4 bytes of an instruction; `word` holds the first 4 bytes, little-endian. */
static inline struct insn decode(uint32_t word)
{
    struct insn out = {.op = OP_OTHER,
                       .rd = word >> 7 & 31,
                       .rs1 = word >> 15 & 31,
                       .rs2 = word >> 20 & 31,
                       .funct3 = word >> 12 & 7};
    if ((word & 3) != 3) {
        unsigned quadrant = word & 3, funct3 = word >> 13 & 7;
        if (quadrant == 1) {
            out.op = OP_PLAIN;
        } else if (quadrant == 2 && (funct3 == 0 || funct3 == 4)) {
            out.op = OP_PLAIN; /* c.slli, c.jr, c.mv, c.ebreak, c.jalr, c.add */
        } else if (quadrant == 0 && funct3 == 0) {
            out.op = OP_PLAIN; /* c.addi4spn */
        } else if (quadrant == 0 && funct3 == 4) {
            out.op = (word & 0x1800) == 0x0800 ? OP_STORE : OP_LOAD; /* Zcb: bit 11 tells */
        } else {
            out.op = funct3 >= 5 ? OP_STORE : OP_LOAD;
            if (funct3 == 6) {
                out.op = OP_STORE; /* c.sw, c.swsp */
            }
            if (funct3 <= 3) {
                out.op = OP_LOAD;
            }
        }
        return out;
    }
    switch (word & 0x7f) {
    case 0x33: /* OP, OP-IMM, OP-32, OP-IMM-32, LUI, AUIPC, BRANCH, JALR, JAL */
    case 0x13:
    case 0x3b:
    case 0x1b:
    case 0x37:
    case 0x17:
    case 0x63:
    case 0x67:
    case 0x6f:
        out.op = OP_PLAIN;
        break;
    case 0x03:
    case 0x07:
        out.op = OP_LOAD;
        break;
    case 0x23:
        out.op = OP_STORE;
        break;
    case 0x27: /* floats have widths 1..4, vectors 0 and 5..7 */
        out.op = out.funct3 >= 1 && out.funct3 <= 4 ? OP_STORE : OP_VSTORE;
        break;
    case 0x2f: /* widths b to q */
        if (out.funct3 <= 4) {
            out.op = word >> 27 == 2 ? OP_LOAD : word >> 27 == 3 ? OP_SC : OP_AMO;
        }
        break;
    case 0x0f:
        if ((word & 0xfff07fff) == 0x0040200f) {
            out.op = OP_CBO_ZERO;
        }
        break;
    case 0x73:
        if (out.funct3 == 0) {
            if (word == 0x10200073 || word == 0x30200073) {
                out.op = OP_RETURN;
                out.detail = word == 0x30200073 ? MRET : SRET;
            }
            if (word == 0x00000073) {
                out.op = OP_CALL;
            }
            if (word == 0x10500073) {
                out.op = OP_WAIT;
            }
            if ((word & ~(1u << 20)) == 0x18000073) {
                out.op = OP_ORDER;
                out.detail = word >> 20 & 1 ? ORDER_SFENCE_INVAL_IR : ORDER_SFENCE_W_INVAL;
            } else if (out.rd == 0) {
                static const struct {
                    uint8_t funct7, fence;
                } fences[] = {{0x09, FENCE_SFENCE_VMA},  {0x0b, FENCE_SINVAL_VMA},
                              {0x11, FENCE_HFENCE_VVMA}, {0x31, FENCE_HFENCE_GVMA},
                              {0x13, FENCE_HINVAL_VVMA}, {0x33, FENCE_HINVAL_GVMA}};
                for (unsigned i = 0; i < sizeof(fences) / sizeof(fences[0]); i++) {
                    if (word >> 25 == fences[i].funct7) {
                        out.op = OP_FENCE;
                        out.detail = fences[i].fence;
                    }
                }
            }
        } else if (out.funct3 == 4) {
            if (word >> 28 == 6) { /* funct7 0110xxx; the rest is Zimop */
                out.op = OP_GUEST;
            }
        } else {
            /* csrrs and csrrc with x0 or 0 only read. */
            bool writes = (out.funct3 & 3) == 1 || out.rs1 != 0;
            out.detail = writes ? csr_at(word >> 20) : CSR_OTHER;
            switch (out.detail) {
            case CSR_SATP:
            case CSR_VSATP:
            case CSR_HGATP:
                out.op = OP_ATP;
                break;
            case CSR_MENVCFG:
            case CSR_HENVCFG:
                out.op = OP_ENVCFG;
                break;
            case CSR_STVEC:
            case CSR_MTVEC:
            case CSR_VSTVEC:
                out.op = OP_VECTOR;
                break;
            case CSR_SSTATUS:
            case CSR_MSTATUS:
            case CSR_VSSTATUS:
                out.op = OP_STATUS;
                break;
            }
        }
        break;
    }
    return out;
}

/* Return true for jumps, branches and fences that end a block of QEMU's.  They are at fault only if the
 * CPU lacks C or Zifencei, or if a jump leads where it must not. */
static inline bool is_transfer(uint32_t word)
{
    unsigned funct3 = word >> 12 & 7, short3 = word >> 13 & 7;
    switch (word & 3) {
    case 1:
        return short3 >= 5; /* c.j, c.beqz, c.bnez */
    case 2:
        return short3 == 4 && (word & 0x7c) == 0 && (word & 0xf80) != 0; /* c.jr, c.jalr */
    case 3:
        switch (word & 0x7f) {
        case 0x63:
            return (funct3 & 6) != 2;
        case 0x67:
            return funct3 == 0;
        case 0x6f:
            return true;
        case 0x0f:
            return funct3 <= 1; /* pause is one, with which a kernel spins */
        }
    }
    return false;
}

/*
 * Return true if QEMU's own count is right though the instruction may trap, at the end of a block, or if
 * the trap alone tells that it is not (is_transfer).  QEMU takes an instruction back that its helpers find
 * at fault, so those on CSRs.  It counts what its translator finds at fault (ecall, ebreak, what does not
 * exist or is switched off), and ends the block there.
 */
static inline bool is_counted_right(uint32_t word)
{
    return is_transfer(word) || ((word & 0x7f) == 0x73 && (word >> 12 & 3) != 0);
}

/* Return true if the effect of the instruction is looked at when the next one begins. */
static inline bool deferred(enum op op)
{
    return op == OP_SC || op == OP_CBO_ZERO || op == OP_VSTORE || op == OP_FENCE ||
           op == OP_ATP || op == OP_ENVCFG || op == OP_ORDER;
}

#endif
