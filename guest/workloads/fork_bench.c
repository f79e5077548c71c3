/* fork-bench: a parent with PAGES pages makes FORKS children, one after the other.

   Each child makes as many random writes as SHARE percent of the pages (copy on write), checks all
   pages and exits.  Then the parent writes one page and checks that the child did not change the
   parent's pages.  The marks begin and end are right before and after the loop. */
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "mark.h"

enum { PAGE = 4096 };
static const char usage[] = "PAGES FORKS SHARE(0..100) SEED";

static volatile uint64_t *words;
static uint32_t pages;

static volatile uint64_t *word(uint32_t page) { return words + (size_t)page * PAGE / 8; }

static uint64_t total(void)
{
    uint64_t all = 0;
    for (uint32_t page = 0; page < pages; page++)
        all += *word(page);
    return all;
}

/* Add 1 to COUNT random pages; return 0, the exit status, if the sum shows exactly that. */
static int child(uint32_t count)
{
    uint64_t before = total();
    for (uint32_t i = 0; i < count; i++)
        ++*word(below(pages));
    return total() != before + count;
}

int main(int argc, char **argv)
{
    pages = (uint32_t)argument(argc, argv, 1, 1, 1 << 18, usage);
    uint32_t forks = (uint32_t)argument(argc, argv, 2, 1, 1 << 20, usage);
    uint32_t share = (uint32_t)argument(argc, argv, 3, 0, 100, usage);
    seed((uint64_t)argument(argc, argv, 4, 0, INT32_MAX, usage));

    void *at = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
    if (at == MAP_FAILED)
        fail("fork-bench: out of memory");
    madvise(at, (size_t)pages * PAGE, MADV_NOHUGEPAGE);
    words = at;
    uint64_t expected = 0;
    for (uint32_t page = 0; page < pages; page++)
        expected += *word(page) = page;

    mark("begin");
    for (uint32_t i = 0; i < forks; i++) {
        next64();
        pid_t pid = fork();
        if (pid == 0)
            _exit(child((uint32_t)((uint64_t)pages * share / 100)));
        int status = -1;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
            fail("fork-bench: a child failed");
        ++*word(below(pages));
        if (total() != ++expected)
            fail("fork-bench: a child changed its parent's memory");
    }
    mark("end");
    mix(expected);
    printf("forks %u checksum %016lx\n", forks, (unsigned long)sum);
    return 0;
}
