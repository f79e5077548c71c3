#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAGIC = 0x45505343, VERSION = 3, ROOM = 4096 };

static struct {
    int fd;
    int64_t (*instructions)(void);
    uint64_t sequence, events;
} stream = {.fd = -1};

/* What is not sent yet.  The tool finds it by its name in the memory of a QEMU that it has to kill:
 * see cosim/capture/plugin/unsent.py. */
struct unsent {
    uint64_t used;
    struct event events[ROOM];
};
extern struct unsent cosim_unsent;
__attribute__((visibility("default"), used)) struct unsent cosim_unsent;

/* Fletcher's checksum over 64-bit words.  An incomplete last word is filled up with 0. */
static void sum(struct checksum *checksum, const void *from, size_t length)
{
    uint64_t words = checksum->words, sums = checksum->sums;
    const uint8_t *data = from;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        words += word;
        sums += words;
    }
    if (length > 0) {
        uint64_t last = 0;
        memcpy(&last, data, length);
        words += last;
        sums += words;
    }
    *checksum = (struct checksum){words, sums};
}

static void send_all(const void *data, size_t length)
{
    const char *from = data;
    while (length > 0 && stream.fd >= 0) {
        ssize_t sent = send(stream.fd, from, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            fprintf(stderr, "cosim plugin: the reader is gone (%s); capture stopped\n",
                    strerror(errno));
            close(stream.fd);
            stream.fd = -1;
            return;
        }
        from += sent;
        length -= sent;
    }
}

static void send_block(enum block_type type, const void *data, size_t length)
{
    struct block_header header = {.magic = MAGIC,
                                  .version = VERSION,
                                  .type = type,
                                  .sequence = stream.sequence++,
                                  .instructions = stream.instructions(),
                                  .length = length};
    struct checksum checksum = {0, 0};
    sum(&checksum, &header, offsetof(struct block_header, checksum));
    sum(&checksum, data, length);
    header.checksum = checksum;
    send_all(&header, sizeof(header));
    send_all(data, length);
}

void stream_open(int fd, int64_t (*instructions)(void))
{
    stream.fd = fd;
    stream.instructions = instructions;
}

bool stream_is_open(void)
{
    return stream.fd >= 0;
}

struct event *emit(enum kind kind, const struct stamp *at)
{
    if (cosim_unsent.used == ROOM) {
        stream_flush();
    }
    stream.events++;
    struct event *event = &cosim_unsent.events[cosim_unsent.used++];
    *event = (struct event){.icount = at->icount,
                            .pc = at->pc,
                            .kind = kind,
                            .hart = at->hart,
                            .priv = at->priv};
    return event;
}

uint64_t stream_events(void)
{
    return stream.events;
}

/* The processes that were found since the last block. */
static struct named_process named[256];
static unsigned named_count;

void stream_flush(void)
{
    if (cosim_unsent.used > 0 && stream.fd >= 0) {
        send_block(BLOCK_EVENTS, cosim_unsent.events, cosim_unsent.used * sizeof(struct event));
    }
    cosim_unsent.used = 0;
    if (named_count > 0 && stream.fd >= 0) {
        send_block(BLOCK_PROCESSES, named, named_count * sizeof(*named));
    }
    named_count = 0;
}

void stream_process(const struct named_process *process)
{
    if (named_count == sizeof(named) / sizeof(*named)) {
        stream_flush();
    }
    named[named_count++] = *process;
}

void stream_block(enum block_type type, const void *data, size_t length)
{
    stream_flush();
    if (stream.fd >= 0) {
        send_block(type, data, length);
    }
}

static enum request receive(int flags)
{
    unsigned char byte;
    if (stream.fd < 0 || recv(stream.fd, &byte, 1, MSG_DONTWAIT | flags) != 1) {
        return NO_REQUEST;
    }
    return byte;
}

enum request stream_request(void)
{
    return receive(0);
}

enum request stream_next_request(void)
{
    return receive(MSG_PEEK);
}

void stream_close(void)
{
    if (stream.fd >= 0) {
        close(stream.fd);
        stream.fd = -1;
    }
}
