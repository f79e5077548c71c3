#include "processes.h"

#include "guest.h"
#include "options.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 16, LARGEST_PID = 1 << 22 };

struct process {
    uint64_t task; /* its virtual address */
    uint32_t pid;
    char comm[sizeof(((struct named_process *)NULL)->name)];
    bool left; /* a hart has left the address space, so its name stands */
    bool over; /* the task has got another number since */
};

static struct process *found; /* the one with number n is n - 1 */
static uint32_t count, room;
static uint32_t *by_root; /* the number, by the page of RAM that is the root */

/* Return false if the bytes are not all in RAM. */
static bool read_guest(uint64_t satp, uint64_t va, void *into, size_t size)
{
    for (uint8_t *to = into; size > 0;) {
        size_t part = PAGE - (va & (PAGE - 1));
        part = part < size ? part : size;
        struct walk walk;
        guest_walk(&walk, satp, va);
        if (!walk.ok || !ram_holds(walk.pa)) {
            return false;
        }
        memcpy(to, ram.bytes + (walk.pa - ram.base), part);
        to += part;
        va += part;
        size -= part;
    }
    return true;
}

static uint64_t read_word(uint64_t satp, uint64_t va)
{
    uint64_t word;
    return read_guest(satp, va, &word, sizeof(word)) ? word : 0;
}

/* The physical address of the root of a task; 0 if it has none. */
static uint64_t root_of(uint64_t satp, uint64_t task)
{
    uint64_t mm = read_word(satp, task + options.processes.mm);
    uint64_t pgd = mm ? read_word(satp, mm + options.processes.pgd) : 0;
    struct walk walk = {0};
    if (pgd) {
        guest_walk(&walk, satp, pgd);
    }
    return walk.ok && ram_holds(walk.pa) ? walk.pa : 0;
}

static bool read_pid(uint64_t satp, uint64_t task, uint32_t *pid)
{
    return read_guest(satp, task + options.processes.pid, pid, sizeof(*pid));
}

/* Return true if the task is still the one that had the number. */
static bool is_same(uint64_t satp, uint32_t number)
{
    uint32_t pid;
    return read_pid(satp, found[number - 1].task, &pid) && pid == found[number - 1].pid;
}

static uint32_t add(uint64_t task, uint32_t pid)
{
    if (count == room) {
        room = room ? 2 * room : 64;
        found = realloc(found, room * sizeof(*found));
        if (!found) {
            abort();
        }
    }
    /* A task that execs may come back to a root that it had before. */
    for (uint32_t i = count; i-- > 0;) {
        if (found[i].task == task && found[i].pid == pid) {
            found[i].over = true;
            break;
        }
    }
    found[count] = (struct process){.task = task, .pid = pid};
    return ++count;
}

/* Return the number for the first process in the list that owns the root; 0 if none does. */
static uint32_t search(uint64_t satp, uint64_t root)
{
    uint64_t head = options.processes.init_task + options.processes.tasks;
    uint64_t link = read_word(satp, head);
    for (int i = 0; i < MOST && link && link != head; i++) {
        uint64_t task = link - options.processes.tasks;
        if (root_of(satp, task) == root) {
            uint32_t pid;
            bool sound = read_pid(satp, task, &pid) && pid > 0 && pid <= LARGEST_PID;
            return sound ? add(task, pid) : 0;
        }
        link = read_word(satp, link);
    }
    return 0;
}

/* Read the name of the process.  Return the number, or a new one if its name stands. */
static uint32_t read_name(uint64_t satp, uint32_t number)
{
    struct process *process = &found[number - 1];
    struct named_process named = {.pid = process->pid};
    size_t size = sizeof(named.name);
    if (!read_guest(satp, process->task + options.processes.comm, named.name, size) ||
        memcmp(named.name, process->comm, size) == 0) {
        return number;
    }
    if (process->left) {
        number = add(process->task, process->pid);
    }
    memcpy(found[number - 1].comm, named.name, size);
    named.number = number;
    stream_process(&named);
    return number;
}

/* The place of the number of the address space; NULL if no process can own it. */
static uint32_t *place_of(uint64_t satp)
{
    uint64_t root = atp_root(satp);
    bool known = by_root && atp_levels(satp) && ram_holds(root);
    return known ? &by_root[(root - ram.base) >> PAGE_BITS] : NULL;
}

void processes_open(void)
{
    free(by_root);
    by_root = options.processes.given ? calloc(ram.size >> PAGE_BITS, sizeof(*by_root)) : NULL;
    count = 0;
}

uint32_t process_loaded(uint64_t satp)
{
    uint32_t *number = place_of(satp);
    if (!number) {
        return 0;
    }
    uint64_t root = atp_root(satp);
    if (!*number || found[*number - 1].over || !is_same(satp, *number) ||
        root_of(satp, found[*number - 1].task) != root) {
        *number = search(satp, root);
    }
    if (*number) {
        *number = read_name(satp, *number);
    }
    return *number;
}

void process_leaves(uint64_t satp)
{
    uint32_t *number = place_of(satp);
    if (!number || !*number || found[*number - 1].left || found[*number - 1].over ||
        !is_same(satp, *number)) {
        return;
    }
    uint64_t task = found[*number - 1].task, mm;
    /* A process that ends has given up its mm, but still has its name. */
    bool ends = read_guest(satp, task + options.processes.mm, &mm, sizeof(mm)) && mm == 0;
    if (ends || root_of(satp, task) == atp_root(satp)) {
        read_name(satp, *number);
    }
    found[*number - 1].left = true;
}
