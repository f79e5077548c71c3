/*
 * The stream to the tool: blocks of events over a socket, each with a sequence number and a
 * checksum.  Sending blocks, so a slow reader slows the guest and nothing is ever lost.
 */
#ifndef COSIM_STREAM_H
#define COSIM_STREAM_H

#include "event.h"

#include <stdbool.h>
#include <stddef.h>

/* Where and when an event happened: what every event of one instruction shares. */
struct stamp {
    int64_t icount, pc;
    uint8_t hart, priv;
};

enum block_type { BLOCK_EVENTS = 1, BLOCK_LABEL, BLOCK_END, BLOCK_PLACE, BLOCK_CALLS,
                  BLOCK_PROCESSES };

/* The address space `number` belongs to a process.  A later one with the same number replaces it. */
struct named_process {
    uint32_t number, pid;
    char name[16];
};

/* The sum of the 64-bit words, and the sum of that sum after each word.  It is cheaper than any
 * CRC, which took as long as filling in the events. */
struct checksum {
    uint64_t words, sums;
};

/* Followed by `length` bytes; all little-endian.  cosim/capture/plugin/stream.py reads it. */
struct block_header {
    uint32_t magic; /* "CSPE" */
    uint16_t version, type;
    uint64_t sequence;
    uint64_t instructions; /* retired by all harts when the block was sent */
    uint64_t length;       /* of what follows */
    struct checksum checksum; /* of the header before it and of what follows */
};
_Static_assert(sizeof(struct block_header) == 48, "the header is 48 bytes");

/* What the tool may ask for, one byte each. */
enum request { NO_REQUEST = 0, REQUEST_BEGIN = 'b', REQUEST_END = 'e', REQUEST_STOP = 's' };

void stream_open(int fd, int64_t (*instructions)(void));
bool stream_is_open(void);
/* Add an event of this kind; the caller fills in the rest before it adds another. */
struct event *emit(enum kind kind, const struct stamp *at);
/* Send the process with the next block, after the events so far. */
void stream_process(const struct named_process *process);
/* How many events were added so far. */
uint64_t stream_events(void);
void stream_flush(void);
/* Send one block of another type, after the events so far. */
void stream_block(enum block_type type, const void *data, size_t length);
/* The next request, without waiting for one. */
enum request stream_request(void);
/* The same, which stays the next one. */
enum request stream_next_request(void);
void stream_close(void);

#endif
