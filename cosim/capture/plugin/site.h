/*
 * What the translator knows of an instruction, packed into the 64 bits of a callback's data.
 */
#ifndef COSIM_SITE_H
#define COSIM_SITE_H

#include <stdint.h>

/* The pc is left out on purpose: QEMU shares translated code between virtual aliases of a page, so
 * only offsets are known. */
struct site {
    uint64_t block : 11;  /* the first instruction of its block, in halfwords within the page */
    uint64_t offset : 11; /* halfwords from there to it */
    uint64_t rest : 9;    /* instructions of the block behind it */
    uint64_t op : 5;      /* enum op */
    uint64_t class : 3;   /* enum class */
    uint64_t priv : 3;    /* enum priv */
    uint64_t rd : 5, rs1 : 5, rs2 : 5;
    uint64_t funct3 : 3;
    uint64_t detail : 4;
};
union packed_site {
    struct site site;
    void *data;
};
_Static_assert(sizeof(union packed_site) == sizeof(void *), "a site fits a pointer");

/* The page that an instruction is fetched from, and which instruction it is. */
struct fetch_site {
    uint64_t page : 26; /* number of the physical page within RAM, plus 1 */
    uint64_t class : 3;
    uint64_t priv : 3;
    uint64_t block : 11; /* as in a site */
    uint64_t offset : 11;
    uint64_t rest : 9;
    uint64_t wide : 1; /* 4 bytes, not 2 */
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

#endif
