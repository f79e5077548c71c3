#include "access.h"

#include "hart.h"
#include "options.h"

bool access_passes(unsigned vcpu, enum class class, enum access kind, uint64_t va, uint64_t pa)
{
    const struct hart *hart = &harts[vcpu];
    return class != CLASS_M &&
           filter_passes(vcpu, class, hart->mxr, kind, va, pa, hart->satp) && options.accesses;
}

void access_event(unsigned vcpu, const struct stamp *at, enum class class, enum access kind,
                  unsigned priv, uint64_t va, uint64_t pa, unsigned size)
{
    struct hart *hart = &harts[vcpu];
    uint8_t flags = (class == CLASS_SUM ? FLAG_SUM : 0) | (hart->mxr ? FLAG_MXR : 0);
    if (!access_passes(vcpu, class, kind, va, pa)) {
        return;
    }
    if (class == CLASS_OTHER) {
        uint64_t status = reg_read(REG_SSTATUS);
        flags = (status >> 18 & 1 ? FLAG_SUM : 0) | (status >> 19 & 1 ? FLAG_MXR : 0);
    }
    struct event *event = emit(KIND_ACCESS, at);
    event->a = va;
    event->b = pa;
    event->sub = kind;
    event->size = size < SIZE_MORE ? size : SIZE_MORE;
    event->flags = flags;
    event->priv = priv;
}
