/* What our workload programs share: arguments, a seeded generator and a check sum.
   The tests compute generator and check sum again in Python. */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xorshift64* (Vigna, 2016): the same numbers on every machine and C library. */
static uint64_t generator = 1;

static void seed(uint64_t value)
{
    generator = value * 0x9e3779b97f4a7c15u;
    if (!generator)
        generator = 1;
}

static uint64_t next64(void)
{
    generator ^= generator >> 12;
    generator ^= generator << 25;
    generator ^= generator >> 27;
    return generator * 0x2545f4914f6cdd1du;
}

/* Return a number from 0 to bound - 1; the bias of 2^-32 does not matter here. */
__attribute__((unused)) static uint32_t below(uint32_t bound)
{
    return (uint32_t)((next64() >> 32) * bound >> 32);
}

/* FNV-1a over 64-bit words. */
static uint64_t sum = 0xcbf29ce484222325u;

__attribute__((unused)) static void mix(uint64_t word)
{
    for (int i = 0; i < 8; i++)
        sum = (sum ^ (word >> 8 * i & 0xff)) * 0x100000001b3u;
}

__attribute__((noreturn, unused)) static void fail(const char *why)
{
    fprintf(stderr, "%s\n", why);
    exit(1);
}

__attribute__((unused)) static void *allocate(size_t count, size_t size)
{
    void *at = calloc(count, size);
    if (!at)
        fail("out of memory");
    return at;
}

/* Return argument INDEX as a number.  If it is not one from MINIMUM to MAXIMUM, print USAGE and
   exit. */
static long argument(int argc, char **argv, int index, long minimum, long maximum,
                     const char *usage)
{
    char *end = 0;
    long value = index < argc ? strtol(argv[index], &end, 10) : 0;
    if (!end || end == argv[index] || *end || value < minimum || value > maximum) {
        fprintf(stderr, "usage: %s %s\n", argv[0], usage);
        exit(2);
    }
    return value;
}

#endif
