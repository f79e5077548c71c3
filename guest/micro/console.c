/* The SBI console, printing, marks. */
#include <stdarg.h>

#include "kernel.h"

enum { CONSOLE_PUTCHAR = 1, SYSTEM_RESET = 0x53525354 };

u64 sbi_call(u64 extension, u64 function, const u64 arguments[5])
{
    register u64 a0 asm("a0") = arguments[0];
    register u64 a1 asm("a1") = arguments[1];
    register u64 a2 asm("a2") = arguments[2];
    register u64 a3 asm("a3") = arguments[3];
    register u64 a4 asm("a4") = arguments[4];
    register u64 a6 asm("a6") = function;
    register u64 a7 asm("a7") = extension;
    asm volatile("ecall"
                 : "+r"(a0), "+r"(a1)
                 : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7)
                 : "memory");
    return a0;
}

static void put(char c)
{
    if (c == '\n')
        put('\r');
    sbi_call(CONSOLE_PUTCHAR, 0, (u64[5]){(u8)c});
}

static void put_number(u64 value, u64 base)
{
    char digits[20], *p = digits;
    do
        *p++ = "0123456789abcdef"[value % base];
    while (value /= base);
    while (p > digits)
        put(*--p);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            put(*p);
            continue;
        }
        switch (*++p) {
        case 's':
            for (const char *text = va_arg(arguments, const char *); *text; text++)
                put(*text);
            break;
        case 'd':
            put_number(va_arg(arguments, u64), 10);
            break;
        case 'x':
            put_number(va_arg(arguments, u64), 16);
            break;
        }
    }
    va_end(arguments);
}

void power_off(void)
{
    sbi_call(SYSTEM_RESET, 0, (u64[5]){0});
    /* No wfi: QEMU runs all code in a page with one instruction by instruction while it records. */
    for (;;)
        asm volatile("");
}

void cosim_mark(u64 a0, u64 a1, u64 a2, u64 a3);

void mark(const char *label)
{
    union { char text[32]; u64 word[4]; } packed = {.word = {0}};
    for (u64 i = 0; i < 32 && label[i]; i++)
        packed.text[i] = label[i];
    cosim_mark(packed.word[0], packed.word[1], packed.word[2], packed.word[3]);
}

/* Even a freestanding compiler may emit calls of these two. */
void *memset(void *to, int byte, u64 count)
{
    for (char *p = to; count--;)
        *p++ = (char)byte;
    return to;
}

void *memcpy(void *to, const void *from, u64 count)
{
    const char *q = from;
    for (char *p = to; count--;)
        *p++ = *q++;
    return to;
}
