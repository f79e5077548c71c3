/* micro: a bare S-mode kernel that runs small paging scenarios.

   Command line:
     scenario=NAME,...   which scenarios; `all`, the default, is all but lsp-bench
                         and those with a seeded bug and their twins
     mode=sv39           or sv48, sv57
     asids=1             0: use one ASID, and fence everything when the root changes
   and the options that the scenario's file describes.  The marks are `begin` before the first
   scenario, the scenario's name before each, and `end` after the last. */
#include "scenarios.h"

static u64 failures;
static const char *running;

void check(int condition, const char *what)
{
    if (!condition) {
        failures++;
        say("micro: %s FAILED: %s\n", running, what);
    }
}

static int levels(void)
{
    const char *mode = option("mode", "sv39");
    if (same(mode, "sv39"))
        return 3;
    if (same(mode, "sv48"))
        return 4;
    if (same(mode, "sv57"))
        return 5;
    say("micro: unknown mode %s; use sv39, sv48 or sv57\n", mode);
    power_off();
}

u64 this_hart;

void kernel_main(const u8 *device_tree, u64 hart)
{
    this_hart = hart;
    static char list[1024];
    read_options(device_tree);
    const char *wanted = option("scenario", "all");
    for (u64 i = 0; wanted[i]; i++)
        list[i] = wanted[i];
    paging_on(levels(), number("asids", 1) != 0);
    say("micro: mode %s, scenario %s\n", option("mode", "sv39"), list);

    u64 ran = 0;
    for (const struct scenario *s = scenarios; s->name; s++) {
        if (!listed(list, s->name) && !(listed(list, "all") && s->in_all))
            continue;
        running = s->name;
        if (s->prepare)
            s->prepare();
        if (!ran++)
            mark("begin");
        mark(s->name);
        u64 before = failures;
        u64 count = s->run();
        if (failures == before)
            say("micro: %s ok, %d steps\n", s->name, count);
    }
    mark("end");
    if (!ran) {
        say("micro: unknown scenario %s; the scenarios are", list);
        for (const struct scenario *s = scenarios; s->name; s++)
            say(" %s", s->name);
        say("\n");
    }
    say("micro: done, %d scenarios, %d failures\n", ran, failures);
}
