/* The command line, which is the property bootargs of the node /chosen in the device tree. */
#include "kernel.h"

enum { MAGIC = 0xd00dfeed, BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, NOTHING = 4 };

static char words[1024];

static u32 big(const u8 *at)
{
    return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void read_options(const u8 *device_tree)
{
    if (!device_tree || big(device_tree) != MAGIC)
        return;
    const u8 *p = device_tree + big(device_tree + 8);
    const char *names = (const char *)device_tree + big(device_tree + 12);
    int depth = 0, chosen = 0;
    for (;;) {
        u32 token = big(p);
        p += 4;
        if (token == BEGIN_NODE) {
            const char *name = (const char *)p;
            chosen = ++depth == 2 && same(name, "chosen");
            u64 size = 1;
            while (name[size - 1])
                size++;
            p += (size + 3) & ~3UL;
        } else if (token == END_NODE) {
            depth--;
            chosen = 0;
        } else if (token == PROPERTY) {
            u32 size = big(p);
            const char *name = names + big(p + 4);
            p += 8;
            if (chosen && same(name, "bootargs"))
                for (u32 i = 0; i < size && i < sizeof words - 1; i++)
                    words[i] = (char)p[i];
            p += (size + 3) & ~3U;
        } else if (token != NOTHING) {
            return;
        }
    }
}

const char *option(const char *name, const char *otherwise)
{
    static char value[1024];
    for (const char *p = words; *p;) {
        while (*p == ' ')
            p++;
        const char *n = name;
        while (*n && *p == *n)
            p++, n++;
        int found = !*n && *p == '=';
        u64 i = 0;
        if (found)
            p++;
        for (; *p && *p != ' '; p++)
            if (found)
                value[i++] = *p;
        if (found) {
            value[i] = 0;
            return value;
        }
    }
    return otherwise;
}

u64 number(const char *name, u64 otherwise)
{
    const char *p = option(name, 0);
    if (!p || !*p)
        return otherwise;
    u64 value = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        value = value * 10 + (u64)(*p - '0');
    if (*p) {
        say("micro: %s is not a number: %s\n", name, option(name, ""));
        power_off();
    }
    return value;
}

int listed(const char *list, const char *name)
{
    while (*list) {
        const char *n = name;
        while (*n && *list == *n)
            list++, n++;
        if (!*n && (!*list || *list == ','))
            return 1;
        while (*list && *list != ',')
            list++;
        if (*list)
            list++;
    }
    return 0;
}
