#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAGIC = 0x45505343, VERSION = 1, ROOM = 4096 };

static struct {
    int fd;
    int64_t (*instructions)(void);
    uint64_t sequence, events;
    size_t used;
    struct event buffer[ROOM];
    uint32_t crc_table[8][256];
} stream = {.fd = -1};

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
        stream.crc_table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++) {
        for (int i = 0; i < 256; i++) {
            uint32_t before = stream.crc_table[slice - 1][i];
            stream.crc_table[slice][i] = before >> 8 ^ stream.crc_table[0][before & 255];
        }
    }
}

/* CRC-32 of IEEE 802.3 of what `before` is the CRC of and more, eight bytes a step. */
static uint32_t crc32(uint32_t before, const void *from, size_t length)
{
    uint32_t(*table)[256] = stream.crc_table;
    const uint8_t *data = from;
    uint32_t crc = ~before;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= crc;
        crc = 0;
        for (int i = 0; i < 8; i++) {
            crc ^= table[7 - i][word >> 8 * i & 255];
        }
    }
    for (; length > 0; data++, length--) {
        crc = crc >> 8 ^ table[0][(crc ^ *data) & 255];
    }
    return ~crc;
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
    header.crc = crc32(0, &header, offsetof(struct block_header, crc));
    header.crc = crc32(header.crc, data, length);
    send_all(&header, sizeof(header));
    send_all(data, length);
}

void stream_open(int fd, int64_t (*instructions)(void))
{
    make_crc_table();
    stream.fd = fd;
    stream.instructions = instructions;
}

bool stream_is_open(void)
{
    return stream.fd >= 0;
}

struct event *stream_event(void)
{
    if (stream.used == ROOM) {
        stream_flush();
    }
    stream.events++;
    return &stream.buffer[stream.used++];
}

uint64_t stream_events(void)
{
    return stream.events;
}

void stream_flush(void)
{
    if (stream.used > 0 && stream.fd >= 0) {
        send_block(BLOCK_EVENTS, stream.buffer, stream.used * sizeof(struct event));
    }
    stream.used = 0;
}

void stream_block(enum block_type type, const void *data, size_t length)
{
    stream_flush();
    if (stream.fd >= 0) {
        send_block(type, data, length);
    }
}

enum request stream_request(void)
{
    unsigned char byte;
    if (stream.fd < 0 || recv(stream.fd, &byte, 1, MSG_DONTWAIT) != 1) {
        return NO_REQUEST;
    }
    return byte;
}

void stream_close(void)
{
    if (stream.fd >= 0) {
        close(stream.fd);
        stream.fd = -1;
    }
}
