#include "calls.h"

#include "count.h"
#include "effects.h"
#include "filter.h"
#include "guest.h"
#include "hart.h"
#include "options.h"
#include "stream.h"

/* Registers of a call, and numbers of the SBI specification. */
enum { A0 = 10, A1, A2, A3, A4, A6 = 16, A7 };
enum { LEGACY_SFENCE_VMA = 6, LEGACY_SFENCE_VMA_ASID = 7, RFENCE = 0x52464e43 };

/* What each function of the extension RFENCE asks for; they are numbered from 0. */
static const struct function {
    bool fences, names_asid;
    uint8_t instruction;
} functions[] = {
    {false, false, 0}, /* remote_fence_i */
    {true, false, FENCE_SFENCE_VMA},  {true, true, FENCE_SFENCE_VMA},
    {true, true, FENCE_HFENCE_GVMA},  {true, false, FENCE_HFENCE_GVMA},
    {true, true, FENCE_HFENCE_VVMA},  {true, false, FENCE_HFENCE_VVMA},
};

bool calls_are_followed(void)
{
    return hart_count > 1 && options.firmware;
}

static uint16_t all_harts(void)
{
    return (1u << hart_count) - 1;
}

/* The harts of a legacy call: a bit mask in the caller's memory. */
static uint16_t legacy_harts(unsigned vcpu, uint64_t va)
{
    struct walk walk;
    guest_walk(&walk, harts[vcpu].satp, va);
    if (va == 0 || !walk.ok || !ram_holds(walk.pa)) {
        return va == 0 ? all_harts() : 0;
    }
    return ram_word(walk.pa & -8ull) & all_harts();
}

static uint16_t named_harts(uint64_t mask, uint64_t base)
{
    if (base == ~0ull) {
        return all_harts();
    }
    return base < 64 ? mask << base & all_harts() : 0;
}

void on_call(unsigned given, void *data)
{
    (void)given;
    unsigned vcpu = running;
    struct site site = ((union packed_site){.data = data}).site;
    in_block(site.rest);
    if (!enter(vcpu)) {
        return;
    }
    settle(vcpu);
    struct call *call = &harts[vcpu].call;
    uint64_t extension = reg_read(A7), number = reg_read(A6);
    *call = (struct call){.at = stamp_of(vcpu, site)};
    bool address = true, asid = false;
    if (extension == RFENCE && number < sizeof(functions) / sizeof(*functions)) {
        call->made = functions[number].fences;
        call->sub = functions[number].instruction;
        call->harts = named_harts(reg_read(A0), reg_read(A1));
        call->first = reg_read(A2);
        call->size = reg_read(A3);
        asid = functions[number].names_asid;
        call->asid = asid ? reg_read(A4) : 0;
    } else if (extension == LEGACY_SFENCE_VMA || extension == LEGACY_SFENCE_VMA_ASID) {
        call->made = true;
        call->sub = FENCE_SFENCE_VMA;
        call->harts = legacy_harts(vcpu, reg_read(A0));
        call->first = reg_read(A1);
        call->size = reg_read(A2);
        asid = extension == LEGACY_SFENCE_VMA_ASID;
        call->asid = asid ? reg_read(A3) : 0;
    }
    if (call->size == ~0ull || (call->first == 0 && call->size == 0)) {
        address = false;
        call->first = call->size = 0;
    }
    call->asid &= call->sub == FENCE_HFENCE_GVMA ? 0x3fff : 0xffff;
    call->sub |= (address ? FENCE_VA : 0) | (asid ? FENCE_ASID : 0);
}

/* Pages that one call may name before it counts as a fence of everything, for the filter. */
enum { FEW = 64 };

static void tell_filter(unsigned vcpu, const struct call *call)
{
    uint64_t satp = harts[vcpu].satp, pages = (call->first % PAGE + call->size + PAGE - 1) / PAGE;
    bool own = !(call->sub & FENCE_ASID) || (satp >> 44 & 0xffff) == call->asid;
    if ((call->sub & ~3u) == FENCE_SFENCE_VMA && call->sub & FENCE_VA && own && pages <= FEW) {
        for (uint64_t i = 0; i < pages; i++) {
            filter_fenced_va(call->first + i * PAGE, call->sub & FENCE_ASID, satp);
        }
    } else if ((call->sub & 3) == FENCE_ALL) {
        filter_fenced();
    } else {
        filter_forget();
    }
    forget_fetched();
}

void call_returns(unsigned vcpu)
{
    struct call *call = &harts[vcpu].call;
    if (!call->made || reg_read(REG_MEPC) != (uint64_t)call->at.pc + 4 || !enter(vcpu)) {
        return;
    }
    call->made = false;
    if (reg_read(A0) != 0) {
        return; /* the firmware has refused it */
    }
    struct stamp at = call->at;
    at.icount = all_instructions() - 1;
    struct event *event = emit(KIND_REMOTE_FENCE, &at);
    event->a = call->first;
    event->b = call->asid;
    event->c = call->size;
    event->sub = call->sub;
    event->harts = call->harts;
    tell_filter(vcpu, call);
}
