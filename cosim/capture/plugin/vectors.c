#include "vectors.h"

#include "decode.h"
#include "guest.h"
#include "translation.h"

static uint64_t vector_offsets[PAGE / 2 / 64]; /* one bit for each even offset in a page */

bool may_be_vector(uint64_t va)
{
    unsigned bit = (va & (PAGE - 1)) / 2;
    return vector_offsets[bit / 64] >> bit % 64 & 1;
}

static void vector_written(uint64_t tvec)
{
    uint64_t va = tvec & -4ull;
    unsigned bit = (va & (PAGE - 1)) / 2;
    if (!may_be_vector(va)) {
        vector_offsets[bit / 64] |= 1ull << bit % 64;
        if (is_translated(va)) {
            translate_anew();
        }
    }
}

void learn_vectors(void)
{
    vector_written(reg_read(REG_STVEC));
    vector_written(reg_read(REG_MTVEC));
}

void vector_begins(struct site site)
{
    uint64_t operand = site.funct3 & 4 ? site.rs1 : reg_read(site.rs1);
    uint64_t old = reg_read(site.detail == CSR_MTVEC ? REG_MTVEC : REG_STVEC);
    switch (site.funct3 & 3) {
    case 1:
        vector_written(operand);
        break;
    case 2:
        vector_written(old | operand);
        break;
    case 3:
        vector_written(old & ~operand);
        break;
    }
}
