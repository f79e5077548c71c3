/* astar-like: a stand-in for 473.astar of SPEC CPU2006.  Like astar it finds paths on a
   two-dimensional map by A*.  It is our own program; neither its code nor its maps are astar's.

   It makes SEARCHES searches between random cells of a SIDE x SIDE grid, where each cell has four
   neighbours.  A quarter of the cells are walls; entering any other cell costs 1 to 8.  The
   heuristic is the Manhattan distance.  It never overestimates, so every path found is a shortest
   one. */
#include "common.h"

static const char usage[] = "SIDE SEARCHES SEED";

struct cell {
    uint32_t distance; /* from this search's start */
    uint32_t search;   /* the last search that reached the cell */
    uint32_t from;     /* the cell before it on the path */
    uint32_t cost;     /* of entering the cell; 0 for a wall */
};

struct open {
    uint32_t estimate, cell;
};

static struct cell *cells;
static uint32_t side;
static struct open *heap; /* from index 1; an entry that improves is pushed again */
static size_t heap_size, heap_room;

static void push(struct open entry)
{
    if (++heap_size >= heap_room) {
        heap_room = heap_room ? 2 * heap_room : 1 << 16;
        heap = realloc(heap, heap_room * sizeof *heap);
        if (!heap)
            fail("astar-like: out of memory");
    }
    size_t place = heap_size;
    for (; place > 1 && heap[place / 2].estimate > entry.estimate; place /= 2)
        heap[place] = heap[place / 2];
    heap[place] = entry;
}

static struct open pop(void)
{
    struct open top = heap[1], last = heap[heap_size--];
    size_t place = 1;
    while (2 * place <= heap_size) {
        size_t child = 2 * place;
        if (child < heap_size && heap[child + 1].estimate < heap[child].estimate)
            child++;
        if (heap[child].estimate >= last.estimate)
            break;
        heap[place] = heap[child];
        place = child;
    }
    heap[place] = last;
    return top;
}

static uint32_t between(uint32_t a, uint32_t b)
{
    uint32_t dx = a % side > b % side ? a % side - b % side : b % side - a % side;
    uint32_t dy = a / side > b / side ? a / side - b / side : b / side - a / side;
    return dx + dy;
}

static void reach(uint32_t to, uint32_t from, uint32_t distance, uint32_t goal, uint32_t search)
{
    struct cell *cell = &cells[to];
    if (!cell->cost)
        return;
    distance += cell->cost;
    if (cell->search == search && cell->distance <= distance)
        return;
    cell->search = search;
    cell->distance = distance;
    cell->from = from;
    push((struct open){distance + between(to, goal), to});
}

/* Return the cost of the cheapest path, 0 if there is none. */
static uint32_t find(uint32_t start, uint32_t goal, uint32_t search)
{
    heap_size = 0;
    cells[start].search = search;
    cells[start].distance = 0;
    cells[start].from = start;
    push((struct open){between(start, goal), start});
    while (heap_size) {
        struct open best = pop();
        uint32_t at = best.cell, distance = cells[at].distance;
        if (best.estimate != distance + between(at, goal))
            continue; /* a better way to this cell was found since */
        if (at == goal)
            return distance;
        if (at % side)
            reach(at - 1, at, distance, goal, search);
        if (at % side + 1 < side)
            reach(at + 1, at, distance, goal, search);
        if (at >= side)
            reach(at - side, at, distance, goal, search);
        if (at + side < side * side)
            reach(at + side, at, distance, goal, search);
    }
    return 0;
}

/* Return a random cell that is not a wall. */
static uint32_t somewhere(void)
{
    uint32_t at;
    do
        at = below(side * side);
    while (!cells[at].cost);
    return at;
}

int main(int argc, char **argv)
{
    side = (uint32_t)argument(argc, argv, 1, 2, 1 << 15, usage);
    uint32_t searches = (uint32_t)argument(argc, argv, 2, 1, 1 << 20, usage);
    seed((uint64_t)argument(argc, argv, 3, 0, INT32_MAX, usage));

    cells = allocate((size_t)side * side, sizeof *cells);
    for (uint32_t i = 0; i < side * side; i++)
        cells[i].cost = below(4) ? 1 + below(8) : 0;
    cells[0].cost = 1; /* so that at least one cell is not a wall */

    uint32_t found = 0;
    uint64_t total = 0;
    for (uint32_t search = 1; search <= searches; search++) {
        uint32_t start = somewhere(), goal = somewhere();
        uint32_t cost = find(start, goal, search), walked = 0;
        for (uint32_t at = goal; cost && at != start; at = cells[at].from)
            walked += cells[at].cost;
        if (walked != cost)
            fail("astar-like: the path does not cost what the search says");
        found += cost > 0;
        total += cost;
        mix(cost);
    }
    printf("paths %u cost %lu checksum %016lx\n", found, (unsigned long)total,
           (unsigned long)sum);
    return 0;
}
