/* lsp-bench: the micro-benchmark of the lazy shadow paging paper (base architecture).

     pages=1024     pages, operated on in sequence
     ops=100000     operations in all
     share=50       per cent of the operations that are modifications; the rest are loads
     seed=1         which of them; their number is exact, their order random
     window=1       modifications before their fences: 1 to 64
     fence=va       va: one sfence.vma for each address of the window; all: one without an address
     global=0       1: map the pages global, as a kernel maps its own
     warm=0         1: read every page and set the mark `measured` before the operations

   A modification is `entry ^= W`.  After `window` modifications come their fences.  The last window
   is fenced too, even if it is shorter. */
#include "scenarios.h"

enum { LARGEST_WINDOW = 64 };

static u64 pages, operations, modifications, expected, window;
static int by_address, warm;
static u8 *plan;
static u64 random_state;

/* splitmix64 */
static u64 random(void)
{
    u64 z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void prepare_bench(void)
{
    pages = number("pages", 1024);
    operations = number("ops", 100000);
    u64 share = number("share", 50);
    random_state = number("seed", 1);
    window = number("window", 1);
    warm = number("warm", 0) != 0;
    by_address = same(option("fence", "va"), "va");
    if (!pages || pages > 4096 || operations > 16000000 || share > 100) {
        say("micro: lsp-bench takes 1 to 4096 pages, at most 16000000 ops and a share to 100\n");
        power_off();
    }
    if (!window || window > LARGEST_WINDOW || !(by_address || same(option("fence", "va"), "all"))) {
        say("micro: lsp-bench takes a window of 1 to 64 and fence=va or fence=all\n");
        power_off();
    }
    u64 va = PLACE(18), flags = number("global", 0) ? RW | G : RW;
    for (u64 i = 0; i < pages; i++)
        *entry(kernel_root, va + i * PAGE, 0) = leaf(frame_with(i), flags);
    fence_all();

    modifications = operations * share / 100;
    plan = new_page();
    for (u64 size = PAGE; size < operations; size += PAGE)
        new_page();
    for (u64 i = 0; i < operations; i++)
        plan[i] = i < modifications;
    for (u64 i = operations; i > 1; i--) {
        u64 j = random() % i;
        u8 kept = plan[i - 1];
        plan[i - 1] = plan[j];
        plan[j] = kept;
    }
    expected = 0;
    for (u64 i = 0; i < operations; i++)
        expected += plan[i] ? 0 : i % pages;
}

/* Fence the COUNT addresses that were modified since the last call. */
static void fence_window(const u64 *changed, u64 count)
{
    if (!by_address) {
        if (count)
            fence_all();
        return;
    }
    for (u64 i = 0; i < count; i++)
        fence_va(changed[i]);
}

u64 run_bench(void)
{
    u64 va = PLACE(18), sum = 0, changed = 0, unfenced = 0, to_fence[LARGEST_WINDOW];
    pte *entries[8];
    for (u64 i = 0; i * ENTRIES < pages; i++)
        entries[i] = entry(kernel_root, va + i * ENTRIES * PAGE, 0);
    if (warm) {
        for (u64 i = 0; i < pages; i++)
            check(load(va + i * PAGE) == i, "what a page holds");
        mark("measured");
    }
    for (u64 i = 0, page = 0; i < operations; i++) {
        u64 at = va + page * PAGE;
        if (plan[i]) {
            entries[page / ENTRIES][page % ENTRIES] ^= W;
            to_fence[unfenced++] = at;
            changed++;
            if (unfenced == window) {
                fence_window(to_fence, unfenced);
                unfenced = 0;
            }
        } else {
            sum += load(at);
        }
        if (++page == pages)
            page = 0;
    }
    fence_window(to_fence, unfenced);
    check(changed == modifications, "the number of modifications");
    check(sum == expected, "the sum of what the loads read");
    say("micro: lsp-bench %d pages, %d modifications, %d loads\n", pages, changed,
        operations - changed);
    return operations;
}
