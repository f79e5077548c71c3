#include "fetch.h"

#include "access.h"
#include "count.h"
#include "effects.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "options.h"

void on_fetch(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct fetch_site site = ((union packed_fetch){.data = data}).site;
    struct hart *hart = &harts[vcpu];
    unsigned length = site.wide ? 4 : 2, first = PAGE - 2 * (site.block + site.offset);
    if (!enter(vcpu)) {
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
    uint64_t from = fetched_from(site);
    filter_know_code(vcpu, site.class, hart->mxr, hart->fetched, site.page, from);
    set_fetched(from);
    if (length > first) {
        struct walk walk;
        guest_walk(&walk, hart->satp, at.pc + first);
        if (walk.ok) {
            access_event(vcpu, &at, site.class, ACCESS_FETCH, at.priv, at.pc + first, walk.pa,
                         length - first);
        }
        set_fetched(0);
    }
}

void on_other_page(unsigned given, void *data)
{
    struct fetch_site site = ((union packed_fetch){.data = data}).site;
    struct hart *hart = &harts[running];
    const struct known_code *known = &known_code[site.page % KNOWN_CODE];
    uint64_t from = fetched_from(site);
    /* What is known of a page proves that the hart's part of the region has begun. */
    if (known->from == from && !hart->waits) {
        hart->fetched = known->va;
        set_fetched(from);
    } else {
        on_fetch(given, data);
    }
}

void on_fetch_of_several(unsigned given, void *data)
{
    if (now->fetch_page != fetched_from(((union packed_fetch){.data = data}).site)) {
        on_other_page(given, data);
    }
}
