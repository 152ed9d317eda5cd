/* TGP/1 from C, with msgpack written by hand: publish with confirms, or work with acknowledgements.
 *
 *     cc -o jobs jobs.c -lzmq            (Debian: libzmq3-dev)
 *     ./jobs publish [COUNT]             ./jobs work [COUNT]
 *
 * The gateway's ROUTER address is taken from TIDEGATE_TGP (tcp://127.0.0.1:5570). docs/tgp.md explains every command.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { HELLO = 1, READY, PUBLISH, CONFIRM, RETURN, CONSUME, CANCEL, DELIVER, ACK, DECLARE = 13, OK = 20, ERROR, PING, PONG, BYE };

/* -- msgpack: as much of it as is needed; https://msgpack.org has all */

typedef struct { unsigned char bytes[65536]; size_t at, size; } Frame;

static Frame out, in, body;
static void byte(int value) { out.bytes[out.size++] = (unsigned char)value; }
static void array(int count) { out.size = 0; byte(0x90 | count); } /* begins a header */
static void map(int count) { byte(0x80 | count); }
static void nil(void) { byte(0xc0); }
static void number(uint64_t value) {
    byte(0xcf);
    for (int shift = 56; shift >= 0; shift -= 8) byte(value >> shift & 0xff);
}
static void text(const char *value) { /* at most 255 bytes */
    size_t length = strlen(value);
    byte(0xd9), byte((int)length);
    memcpy(out.bytes + out.size, value, length), out.size += length;
}
static uint64_t big(int count) {
    uint64_t value = 0;
    while (count-- > 0) value = value << 8 | in.bytes[in.at++];
    return value;
}

/* Read one value: returns a number or a boolean, or how many bytes a string has, which begins at `*start`.
 * Of a map or an array it reads the beginning only, and `inside` is how many values come next. */
static uint64_t inside;
static uint64_t take(const char **start) {
    int first = (int)big(1);
    uint64_t size;
    inside = 0;
    if (first < 0x80) return first;                                           /* a small number */
    if (first < 0x90) return inside = 2 * (first & 0x0f);                     /* a map: keys and values */
    if (first < 0xa0) return inside = first & 0x0f;                           /* an array */
    if (first >= 0xc0 && first <= 0xc3) return first == 0xc3;                 /* nil, false, true */
    if (first >= 0xcc && first <= 0xcf) return big(1 << (first - 0xcc));      /* a number */
    if (first == 0xdc || first == 0xdd) return inside = big(first == 0xdc ? 2 : 4);
    if (first < 0xc0) size = first & 0x1f;                                    /* a string */
    else if (first >= 0xd9 && first <= 0xdb) size = big(1 << (first - 0xd9));
    else fprintf(stderr, "unexpected type %02x\n", first), exit(1);
    *start = (const char *)in.bytes + in.at, in.at += size;
    return size;
}
static uint64_t next(void) {
    const char *start;
    uint64_t value = take(&start);
    for (uint64_t left = inside; left; left--) next();
    return value;
}

static void *sock;
static void say(const char *content) {
    zmq_send(sock, out.bytes, out.size, content ? ZMQ_SNDMORE : 0);
    if (content) zmq_send(sock, content, strlen(content), 0);
}

/* Wait for a message, answer pings; returns the command. Its fields are read with `next` and `take`. */
static int hear(void) {
    for (;;) {
        int more = 0, size = zmq_recv(sock, in.bytes, sizeof in.bytes, 0);
        size_t length = sizeof more;
        if (size < 0 && (array(1), byte(PING), say(NULL), 1)) continue; /* no word for a heartbeat: is it there? */
        in.at = body.size = 0;
        zmq_getsockopt(sock, ZMQ_RCVMORE, &more, &length);
        if (more) body.size = zmq_recv(sock, body.bytes, sizeof body.bytes - 1, 0);
        body.bytes[body.size < sizeof body.bytes ? body.size : sizeof body.bytes - 1] = 0; /* what is longer is cut off */
        const char *start;
        take(&start); /* the array's beginning */
        int command = (int)next();
        if (command == PING) {
            array(1), byte(PONG), say(NULL);
        } else if (command == ERROR || command == BYE) { /* a client of yours would connect again here, and send again */
            if (command == ERROR) next();
            int code = (int)next(), count = (int)take(&start);
            fprintf(stderr, "the gateway says %d: %.*s\n", code, count, start), exit(1);
        } else if (command != PONG) {
            return command;
        }
    }
}
static void expect(int command) { while (hear() != command) {} }

int main(int argc, char **argv) {
    const char *address = getenv("TIDEGATE_TGP"), *start, *what = argc > 1 ? argv[1] : "publish";
    int heartbeat_ms = 2000;
    uint64_t seq = 0, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 5;
    void *context = zmq_ctx_new();
    sock = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(sock, ZMQ_RCVTIMEO, &heartbeat_ms, sizeof heartbeat_ms);
    zmq_setsockopt(sock, ZMQ_LINGER, &heartbeat_ms, sizeof heartbeat_ms);
    if (zmq_connect(sock, address ? address : "tcp://127.0.0.1:5570")) return perror("connect"), 1;

    array(4), byte(HELLO), number(1), number(1), map(2), text("client"), text(what);
    text("heartbeat_ms"), number(heartbeat_ms), say(NULL);
    expect(READY);
    next(), next(); /* r, version */
    for (uint64_t left = take(&start); left; left -= 2) { /* numbers go on from where this client ended the last time */
        uint64_t length = take(&start);
        const char *key = start;
        uint64_t value = next();
        if (length == 8 && !memcmp(key, "last_seq", 8)) seq = value;
    }
    array(4), byte(DECLARE), number(2), text("queue"), text("jobs"), say(NULL);
    expect(OK);
    if (!strcmp(what, "publish")) {
        uint64_t before = seq, decided = seq;
        char job[32];
        for (uint64_t n = 1; n <= count; n++) {
            snprintf(job, sizeof job, "job %d", (int)n);
            array(6), byte(PUBLISH), number(++seq), text(""), text("jobs"), nil(), number(0), say(job);
            while (seq - decided > (n < count ? 1000 : 0)) { /* a gateway refuses more than so many unconfirmed ones (10,000) */
                expect(CONFIRM);
                uint64_t last = next(), multiple = next(), status = next();
                for (uint64_t k = multiple ? decided + 1 : last; k <= last; k++) /* one message's, or of all up to its number */
                    printf(status ? "refused %d: %d\n" : "confirmed %d\n", (int)(k - before), (int)status);
                decided = last;
            }
        }
    } else {
        array(5), byte(CONSUME), number(3), text("jobs"), text("c"), number(10), say(NULL);
        for (uint64_t done = 0; done < count;) {
            int command = hear();
            if (command == OK) puts("waiting for jobs"), fflush(stdout);
            if (command != DELIVER) continue;
            uint64_t delivery = (next(), next()); /* behind the tag */
            printf("done %s\n", body.bytes), fflush(stdout), done++;
            array(3), byte(ACK), text("c"), number(delivery), say(NULL); /* only now does it leave the queue */
        }
    }
    array(3), byte(BYE), number(200), text("done"), say(NULL);
    return zmq_close(sock) || zmq_ctx_term(context);
}
