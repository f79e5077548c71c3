#include "fetch.h"

#include "access.h"
#include "count.h"
#include "effects.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "options.h"

/* The page of code that was fetched from last, by the number of the physical page modulo KNOWN. */
enum { KNOWN = 1024 };
static struct known_code {
    uint64_t from; /* fetched_from */
    uint64_t va;   /* the page's virtual address then */
} known_code[MAX_HARTS][KNOWN];

void on_fetch(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct fetch_site site = ((union packed_fetch){.data = data}).site;
    struct hart *hart = &harts[vcpu];
    struct known_code *known = &known_code[vcpu][site.page % KNOWN];
    unsigned length = site.wide ? 4 : 2, first = PAGE - 2 * (site.block + site.offset);
    if (!enter(vcpu)) {
        return;
    }
    if (options.filter > 1 && !hart->waits && length <= first &&
        known->from == fetched_from(site) &&
        filter_holds_code(vcpu, site.class, hart->mxr, known->va, site.page)) {
        hart->fetched = known->va;
        set_fetched(known->from);
        return;
    }
    in_block(site.rest);
    settle(vcpu);
    struct stamp at = {
        .icount = all_instructions() - 1,
        .pc = pc_of((struct site){.block = site.block, .offset = site.offset}),
        .hart = vcpu,
        .priv = site.priv};
    hart->fetched = at.pc & -(uint64_t)PAGE;
    uint64_t pa = ram.base + ((uint64_t)(site.page - 1) << PAGE_BITS) + (at.pc & (PAGE - 1));
    access_event(vcpu, &at, site.class, ACCESS_FETCH, at.priv, at.pc, pa,
                 length < first ? length : first);
    *known = (struct known_code){.from = fetched_from(site), .va = hart->fetched};
    set_fetched(known->from);
    if (length > first) {
        struct walk walk = guest_walk(hart->satp, at.pc + first);
        if (walk.ok) {
            access_event(vcpu, &at, site.class, ACCESS_FETCH, at.priv, at.pc + first, walk.pa,
                         length - first);
        }
        set_fetched(0);
    }
}

void on_fetch_elsewhere(unsigned vcpu, void *data)
{
    if (now->fetch_page != fetched_from(((union packed_fetch){.data = data}).site)) {
        on_fetch(vcpu, data);
    }
}
