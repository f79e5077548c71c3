/* mprotect-bench: the Linux program that comes nearest to the paper's micro-benchmark.

   It does OPERATIONS operations on PAGES pages, one page after the other.  Exactly SHARE percent of
   them, chosen at random, modify the page's entry: mprotect switches the page between read-only and
   read-write.  For that Linux stores to the entry twice (clear, set) and fences the address once.
   The other operations read the page.  The marks begin and end are right before and after the
   loop. */
#include <sys/mman.h>

#include "common.h"
#include "mark.h"

enum { PAGE = 4096 };
static const char usage[] = "PAGES OPERATIONS SHARE(0..100) SEED";

/* Return COUNT bytes, of which ONES are 1, in random order (Fisher and Yates). */
static uint8_t *shuffled(uint32_t count, uint32_t ones)
{
    uint8_t *list = allocate(count, 1);
    memset(list, 1, ones);
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t j = below(i + 1);
        uint8_t swapped = list[i];
        list[i] = list[j];
        list[j] = swapped;
    }
    return list;
}

int main(int argc, char **argv)
{
    uint32_t pages = (uint32_t)argument(argc, argv, 1, 1, 16384, usage);
    uint32_t operations = (uint32_t)argument(argc, argv, 2, 1, 1 << 30, usage);
    uint32_t share = (uint32_t)argument(argc, argv, 3, 0, 100, usage);
    seed((uint64_t)argument(argc, argv, 4, 0, INT32_MAX, usage));

    uint32_t modifications = (uint32_t)((uint64_t)operations * share / 100);
    uint8_t *modify = shuffled(operations, modifications);
    uint8_t *writable = allocate(pages, 1);
    volatile uint8_t *at = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        fail("mprotect-bench: out of memory");
    /* One entry for each page, as in the paper. */
    madvise((void *)at, (size_t)pages * PAGE, MADV_NOHUGEPAGE);
    for (uint32_t page = 0; page < pages; page++) {
        at[(size_t)page * PAGE] = (uint8_t)(page + 1);
        writable[page] = 1;
    }

    uint32_t modified = 0;
    uint64_t total = 0;
    mark("begin");
    for (uint32_t i = 0, page = 0; i < operations; i++, page = page + 1 < pages ? page + 1 : 0) {
        volatile uint8_t *byte = at + (size_t)page * PAGE;
        if (modify[i]) {
            writable[page] ^= 1;
            int rights = writable[page] ? PROT_READ | PROT_WRITE : PROT_READ;
            if (mprotect((void *)byte, PAGE, rights))
                fail("mprotect-bench: mprotect failed");
            modified++;
        } else {
            total += *byte;
        }
    }
    mark("end");
    mix(total);
    printf("modified %u read %u checksum %016lx\n", modified, operations - modified,
           (unsigned long)sum);
    return 0;
}
