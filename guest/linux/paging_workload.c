/* paging-workload: makes the kernel edit page tables in all common ways, for a second or two.

   The steps are small, because a session through gdb stops at every table store.  Each ends with a
   line on the console.  They check what they read back; a wrong byte makes the exit status 1. */
#include "rt.h"

enum { SMALL = 16, RANGE = 80 };

static int failures;

static char *map(u64 pages)
{
    i64 at = syscall6(SYS_mmap, 0, pages * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1UL, 0);
    if (at < 0 && at > -4096) {
        print("paging-workload: mmap failed\n");
        leave(1);
    }
    return (char *)at;
}

static void unmap(char *at, u64 pages) { syscall2(SYS_munmap, at, pages * PAGE); }

static void touch(char *at, u64 pages, char value)
{
    for (u64 i = 0; i < pages; i++)
        *(volatile char *)(at + i * PAGE) = (char)(value + i);
}

static void expect(const char *at, u64 pages, char value)
{
    for (u64 i = 0; i < pages; i++)
        failures += *(const volatile char *)(at + i * PAGE) != (char)(value + i);
}

static void say(const char *step, i64 count)
{
    print("paging-workload: ");
    print(step);
    print(" ");
    print_number(count);
    print("\n");
}

/* Fault pages in on demand, then make each one read-only and writable again. */
static char *protect(void)
{
    char *at = map(SMALL);
    touch(at, SMALL, 1);
    say("mapped", SMALL);
    for (u64 i = 0; i < SMALL; i++) {
        syscall3(SYS_mprotect, at + i * PAGE, PAGE, PROT_READ);
        expect(at + i * PAGE, 1, (char)(1 + i));
        syscall3(SYS_mprotect, at + i * PAGE, PAGE, PROT_READ | PROT_WRITE);
    }
    touch(at, SMALL, 2);
    say("protected", SMALL);
    return at;
}

/* Children write pages that they share with the parent, so both sides copy on write. */
static void copy_on_write(char *at)
{
    enum { CHILDREN = 3 };
    for (int child = 0; child < CHILDREN; child++) {
        i64 pid = fork();
        if (pid == 0) {
            expect(at, SMALL, 2);
            touch(at, SMALL / 2, (char)(10 + child));
            expect(at, SMALL / 2, (char)(10 + child));
            leave(failures != 0);
        }
        failures += wait_for(pid) != 0;
        expect(at, SMALL, 2);
    }
    touch(at, SMALL, 3);
    say("forked", CHILDREN);
}

/* MADV_COLD clears accessed bits; pages that were dropped come back as zeroes. */
static void advise(char *at)
{
    syscall3(SYS_madvise, at, SMALL / 2 * PAGE, MADV_COLD);
    expect(at, SMALL / 2, 3);
    syscall3(SYS_madvise, at, SMALL / 2 * PAGE, MADV_DONTNEED);
    for (u64 i = 0; i < SMALL / 2; i++)
        failures += at[i * PAGE] != 0;
    touch(at, SMALL, 4);
    say("advised", SMALL);
}

/* Move page-table entries to another range. */
static char *move(char *at)
{
    char *to = map(SMALL);
    i64 moved = syscall5(SYS_mremap, at, SMALL * PAGE, SMALL * PAGE,
                         MREMAP_MAYMOVE | MREMAP_FIXED, to);
    failures += moved != (i64)to;
    expect(to, SMALL, 4);
    say("moved", SMALL);
    return to;
}

/* Unmap more pages than Linux fences one by one (64), so it fences the whole ASID. */
static void unmap_many(void)
{
    char *at = map(RANGE);
    touch(at, RANGE, 5);
    expect(at, RANGE, 5);
    unmap(at, RANGE);
    say("unmapped", RANGE);
}

/* Protect a 2 MiB block, which Linux may map with one superpage leaf. */
static void huge(void)
{
    enum { BLOCK = 512 };
    char *at = map(2 * BLOCK);
    char *block = (char *)(((u64)at + BLOCK * PAGE - 1) & ~((u64)BLOCK * PAGE - 1));
    touch(block, 1, 7);
    syscall3(SYS_mprotect, block, BLOCK * PAGE, PROT_READ);
    expect(block, 1, 7);
    for (u64 i = 1; i < BLOCK; i += 100)
        failures += block[i * PAGE] != 0;
    unmap(at, 2 * BLOCK);
    say("huge", BLOCK);
}

/* Execute a program, which gets a new address space. */
static void execute(char *self)
{
    i64 pid = fork();
    if (pid == 0) {
        char *argv[] = {self, "child", 0}, *environment[] = {0};
        syscall3(SYS_execve, self, argv, environment);
        leave(127);
    }
    failures += wait_for(pid) != 0;
    say("executed", 1);
}

int main(int argc, char **argv)
{
    if (argc > 1 && same(argv[1], "child")) {
        char *at = map(4);
        touch(at, 4, 6);
        expect(at, 4, 6);
        return failures != 0;
    }
    char *at = protect();
    copy_on_write(at);
    advise(at);
    at = move(at);
    unmap(at, SMALL);
    unmap_many();
    huge();
    execute(argv[0]);
    say("failures", failures);
    return failures != 0;
}
