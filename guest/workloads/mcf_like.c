/* mcf-like: a stand-in for 429.mcf of SPEC CPU2006.  Like mcf it computes a minimum-cost flow and
   chases pointers through nodes and arcs that are in no particular order in memory.  It is our own
   program; neither its code nor its input is mcf's.

   The method is successive shortest paths: UNITS times Dijkstra on reduced costs over the whole
   residual network, then one augmentation.  The arcs are made with random tails, so a walk along a
   node's list jumps from page to page.  At the end the program proves the solution: no residual arc
   between reachable nodes has a negative reduced cost, and every node conserves flow. */
#include "common.h"

static const char usage[] = "NODES ARCS UNITS SEED";

struct node;

struct arc {
    struct node *head;
    struct arc *next; /* the next arc of the same tail */
    struct arc *twin; /* the residual arc back */
    int32_t cost;
    int32_t capacity; /* what is left */
};

struct node {
    struct arc *first;
    struct arc *via; /* last arc of the shortest path to here */
    int64_t distance;
    int64_t potential;
    uint32_t place; /* in the heap, counted from 1; 0: not in it */
    int32_t excess; /* for the proof */
};

static const int64_t FAR = INT64_MAX / 4;

static struct node *nodes;
static struct arc *arcs;
static uint32_t node_count, arc_count;

static struct node **heap;
static uint32_t heap_size;

static void put(uint32_t place, struct node *node)
{
    heap[place] = node;
    node->place = place;
}

static void rise(uint32_t place, struct node *node)
{
    for (; place > 1 && heap[place / 2]->distance > node->distance; place /= 2)
        put(place, heap[place / 2]);
    put(place, node);
}

static void lower(struct node *node, int64_t distance)
{
    node->distance = distance;
    rise(node->place ? node->place : ++heap_size, node);
}

static struct node *nearest(void)
{
    struct node *top = heap[1], *last = heap[heap_size--];
    uint32_t place = 1;
    while (2 * place <= heap_size) {
        uint32_t child = 2 * place;
        if (child < heap_size && heap[child + 1]->distance < heap[child]->distance)
            child++;
        if (heap[child]->distance >= last->distance)
            break;
        put(place, heap[child]);
        place = child;
    }
    if (heap_size)
        put(place, last);
    top->place = 0;
    return top;
}

static void connect(struct node *tail, struct node *head, int32_t cost, int32_t capacity)
{
    struct arc *out = &arcs[arc_count++], *back = &arcs[arc_count++];
    *out = (struct arc){head, tail->first, back, cost, capacity};
    tail->first = out;
    *back = (struct arc){tail, head->first, out, -cost, 0};
    head->first = back;
}

/* Node 0 is the source and the last node the sink.  UNITS arcs leave the source, and UNITS arcs
   enter the sink. */
static void build(uint32_t arc_pairs, uint32_t units)
{
    nodes = allocate(node_count, sizeof *nodes);
    arcs = allocate(2 * ((size_t)arc_pairs + 2 * (size_t)units), sizeof *arcs);
    heap = allocate(node_count + 1, sizeof *heap);
    for (uint32_t i = 0; i < units; i++) {
        connect(&nodes[0], &nodes[1 + below(node_count - 2)], 0, 1);
        connect(&nodes[1 + below(node_count - 2)], &nodes[node_count - 1], 0, 1);
    }
    for (uint32_t i = 0; i < arc_pairs; i++) {
        struct node *tail = &nodes[1 + below(node_count - 2)];
        struct node *head = &nodes[1 + below(node_count - 2)];
        int32_t cost = 1 + (int32_t)below(1000);
        connect(tail, head, cost, 1 + (int32_t)below(3));
    }
}

static void shortest_paths(void)
{
    for (uint32_t i = 0; i < node_count; i++)
        nodes[i].distance = FAR;
    lower(&nodes[0], 0);
    while (heap_size) {
        struct node *node = nearest();
        for (struct arc *arc = node->first; arc; arc = arc->next) {
            if (!arc->capacity)
                continue;
            int64_t reduced = arc->cost + node->potential - arc->head->potential;
            if (node->distance + reduced < arc->head->distance) {
                arc->head->via = arc;
                lower(arc->head, node->distance + reduced);
            }
        }
    }
    for (uint32_t i = 0; i < node_count; i++)
        if (nodes[i].distance < FAR)
            nodes[i].potential += nodes[i].distance;
}

/* Send one unit along the shortest path; return its cost. */
static int64_t augment(void)
{
    int64_t cost = 0;
    for (struct node *at = &nodes[node_count - 1]; at != nodes; at = at->via->twin->head) {
        at->via->capacity--;
        at->via->twin->capacity++;
        cost += at->via->cost;
    }
    return cost;
}

static void prove(int64_t flow, int64_t cost)
{
    int64_t paid = 0;
    for (uint32_t i = 0; i < arc_count; i++) {
        struct arc *arc = &arcs[i];
        struct node *tail = arc->twin->head;
        if (arc->capacity && tail->distance < FAR &&
            arc->cost + tail->potential < arc->head->potential)
            fail("mcf-like: the flow is not of minimum cost");
        if (i & 1) { /* the capacity of the arc back is the flow of the arc forward */
            arc->head->excess += arc->capacity;
            tail->excess -= arc->capacity;
            paid -= (int64_t)arc->cost * arc->capacity;
        }
    }
    for (uint32_t i = 0; i < node_count; i++) {
        int64_t expected = i == 0 ? flow : i == node_count - 1 ? -flow : 0;
        if (nodes[i].excess != expected)
            fail("mcf-like: a node does not conserve flow");
        mix((uint64_t)nodes[i].potential);
    }
    if (paid != cost)
        fail("mcf-like: the arcs do not cost what the paths did");
}

int main(int argc, char **argv)
{
    node_count = (uint32_t)argument(argc, argv, 1, 4, 1 << 24, usage);
    uint32_t arc_pairs = (uint32_t)argument(argc, argv, 2, 1, 1 << 26, usage);
    uint32_t units = (uint32_t)argument(argc, argv, 3, 1, 1 << 16, usage);
    seed((uint64_t)argument(argc, argv, 4, 0, INT32_MAX, usage));
    build(arc_pairs, units);

    int64_t flow = 0, cost = 0;
    shortest_paths();
    while (nodes[node_count - 1].distance < FAR) {
        cost += augment();
        flow++;
        shortest_paths();
    }
    prove(flow, cost);
    printf("flow %ld cost %ld checksum %016lx\n", (long)flow, (long)cost, (unsigned long)sum);
    return 0;
}
