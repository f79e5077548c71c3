/* What our static Linux programs need: system calls, printing, marks.
   All of it is in this header, so a program is one C file and ../mark.S. */
#ifndef RT_H
#define RT_H

typedef unsigned long u64;
typedef long i64;

enum {
    SYS_mount = 40, SYS_openat = 56, SYS_close = 57, SYS_read = 63,
    SYS_write = 64, SYS_exit = 93, SYS_reboot = 142, SYS_setsid = 157,
    SYS_munmap = 215, SYS_mremap = 216, SYS_clone = 220, SYS_execve = 221, SYS_mmap = 222,
    SYS_mprotect = 226, SYS_madvise = 233, SYS_wait4 = 260, SYS_ioctl = 29, SYS_dup3 = 24,
    SYS_sync = 81,
};

enum { PAGE = 4096, AT_FDCWD = -100, SIGCHLD = 17 };
enum { O_RDONLY = 0, O_RDWR = 2 };
enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 32 };
enum { MADV_DONTNEED = 4, MADV_COLD = 20, MREMAP_MAYMOVE = 1, MREMAP_FIXED = 2 };

static inline i64 syscall6(i64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    register u64 a0 asm("a0") = a;
    register u64 a1 asm("a1") = b;
    register u64 a2 asm("a2") = c;
    register u64 a3 asm("a3") = d;
    register u64 a4 asm("a4") = e;
    register u64 a5 asm("a5") = f;
    register i64 a7 asm("a7") = n;
    asm volatile("ecall"
                 : "+r"(a0)
                 : "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5), "r"(a7)
                 : "memory");
    return (i64)a0;
}

#define syscall0(n) syscall6(n, 0, 0, 0, 0, 0, 0)
#define syscall1(n, a) syscall6(n, (u64)(a), 0, 0, 0, 0, 0)
#define syscall2(n, a, b) syscall6(n, (u64)(a), (u64)(b), 0, 0, 0, 0)
#define syscall3(n, a, b, c) syscall6(n, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)
#define syscall4(n, a, b, c, d) syscall6(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)
#define syscall5(n, a, b, c, d, e) \
    syscall6(n, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), 0)

/* Even a freestanding compiler may emit calls of these two. */
__attribute__((used)) static void *memset(void *to, int byte, u64 count)
{
    char *p = to;
    while (count--)
        *p++ = (char)byte;
    return to;
}

__attribute__((used)) static void *memcpy(void *to, const void *from, u64 count)
{
    char *p = to;
    const char *q = from;
    while (count--)
        *p++ = *q++;
    return to;
}

static u64 length(const char *text)
{
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void print(const char *text) { syscall3(SYS_write, 1, text, length(text)); }

static void print_number(i64 value)
{
    char digits[24], *p = digits + sizeof digits;
    u64 rest = value < 0 ? -(u64)value : (u64)value;
    *--p = 0;
    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--p = '-';
    print(p);
}

void cosim_mark(u64 a0, u64 a1, u64 a2, u64 a3);

/* Set the mark LABEL (its first 32 bytes). */
static void mark(const char *label)
{
    union { char text[32]; u64 word[4]; } packed;
    u64 i = 0;
    for (; i < 32 && label[i]; i++)
        packed.text[i] = label[i];
    for (; i < 32; i++)
        packed.text[i] = 0;
    cosim_mark(packed.word[0], packed.word[1], packed.word[2], packed.word[3]);
}

static i64 fork(void) { return syscall5(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

static void __attribute__((noreturn)) leave(int status)
{
    for (;;)
        syscall1(SYS_exit, status);
}

/* Wait for the child PID (-1: any).  Return its exit status, 128 + signal if a signal killed it, or
   -1 if there is no such child. */
static int wait_for(i64 pid)
{
    int status = 0;
    if (syscall4(SYS_wait4, pid, &status, 0, 0) < 0)
        return -1;
    return status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff;
}

int main(int argc, char **argv);

/* At entry argc, argv and the environment are on the stack. */
__attribute__((used)) static void __attribute__((noreturn)) start_c(u64 *stack)
{
    leave(main((int)stack[0], (char **)(stack + 1)));
}

asm(".globl _start\n"
    "_start:\n"
    "   mv a0, sp\n"
    "   tail start_c\n");

#endif
