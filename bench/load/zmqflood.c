/* Loads a gateway with plain ZeroMQ peers or with TGP/1, counts what comes back; and two gateways in C to compare with.
 *
 *     zmqflood pipe --into ADDRESS --out ADDRESS [--peers 1] [--frames 1]       PUSH sockets that send, PULL sockets that count
 *     zmqflood tgp --into ADDRESS [--flood] [--each] [--batch N] [--persistent] [--plain]     one DEALER publishes, one consumes
 *     zmqflood proxy --into ADDRESS --out ADDRESS                               libzmq's zmq_proxy
 *     zmqflood loop --into ADDRESS                                              a ROUTER that passes on what comes
 *
 * A load has a window of messages that have not come back, so that what goes in is what comes out. When it is warm it prints "begin",
 * then, after --seconds, one line of JSON. `busy` is the share of that time that it was computing: near 1 it is the load, and not the
 * gateway, that says how many messages a second there are.
 */

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <zmq.h>

enum { MOST_PEERS = 1000, MOST_BYTES = 65536, TURN = 256, STUCK_S = 10 };

static struct {
    const char *into, *out;
    int peers, frames, size, window, batch, credit;
    int flood, each, persistent, plain;
    double seconds, warm;
} opt = {.peers = 1, .frames = 1, .size = 100, .window = 0, .credit = 1000, .seconds = 2, .warm = 0.5};

static char body[MOST_BYTES];

static void die(const char *what) {
    fprintf(stderr, "zmqflood: %s\n", what);
    exit(1);
}

static void *ok(void *socket, int result, const char *what) {
    if (result != 0) {
        fprintf(stderr, "zmqflood: %s: %s\n", what, zmq_strerror(errno));
        exit(1);
    }
    return socket;
}

static void *peer(void *context, int kind, const char *address) {
    void *socket = zmq_socket(context, kind);
    return ok(socket, zmq_connect(socket, address), address);
}

static void *home(void *context, int kind, const char *address) {
    void *socket = zmq_socket(context, kind);
    return ok(socket, zmq_bind(socket, address), address);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double used(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* -- when to begin, and when to end */

static struct {
    double first, begun, used, moved;
    long count, last;
} run_;

/* Note how many messages have come; say whether it is over. */
static int over(long count) {
    double t = now();
    if (run_.moved == 0 || count != run_.last) {
        run_.moved = t;
        run_.last = count;
    } else if (t - run_.moved > STUCK_S) {
        die(count ? "nothing comes through any more" : "nothing comes through");
    }
    if (count && run_.first == 0) run_.first = t;
    if (run_.first == 0) return 0;
    if (run_.begun == 0) {
        if (t - run_.first >= opt.warm) {
            puts("begin");
            fflush(stdout);
            run_.begun = now();
            run_.used = used();
            run_.count = count;
        }
        return 0;
    }
    double seconds = t - run_.begun;
    if (seconds < opt.seconds) return 0;
    printf("{\"count\": %ld, \"seconds\": %.6f, \"rate\": %.1f, \"busy\": %.3f, \"load\": \"C\"}\n", count - run_.count, seconds,
           (count - run_.count) / seconds, (used() - run_.used) / seconds);
    fflush(stdout);
    return 1;
}

/* -- plain peers */

static int push(void *socket) {
    if (opt.frames > 1 && zmq_send_const(socket, "a.b", 3, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) return 0;
    return zmq_send_const(socket, body, opt.size, ZMQ_DONTWAIT) >= 0;
}

static int take(void *socket, zmq_msg_t *message) {
    if (zmq_msg_recv(message, socket, ZMQ_DONTWAIT) < 0) return 0;
    while (zmq_msg_more(message))
        if (zmq_msg_recv(message, socket, 0) < 0) die("half a message");
    return 1;
}

static void pipe_(void) {
    static void *pushes[MOST_PEERS], *pulls[MOST_PEERS];
    static zmq_pollitem_t items[2 * MOST_PEERS];
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, 4 * MOST_PEERS);
    if (opt.peers > MOST_PEERS) die("too many peers");
    for (int i = 0; i < opt.peers; i++) pulls[i] = peer(context, ZMQ_PULL, opt.out);
    for (int i = 0; i < opt.peers; i++) pushes[i] = peer(context, ZMQ_PUSH, opt.into);
    long sent = 0, got = 0, window = opt.window ? opt.window : 20000;
    int share = opt.peers > 10 ? TURN / 10 : TURN;
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (!over(got)) {
        long before = sent + got;
        for (int i = 0; i < opt.peers && sent - got < window; i++)
            for (int n = 0; n < share && sent - got < window && push(pushes[i]); n++) sent++;
        for (int i = 0; i < opt.peers; i++)
            for (int n = 0; n < TURN && take(pulls[i], &message); n++) got++;
        if (sent + got == before) {
            int count = 0;
            for (int i = 0; i < opt.peers; i++) items[count++] = (zmq_pollitem_t){pulls[i], 0, ZMQ_POLLIN, 0};
            for (int i = 0; i < opt.peers && sent - got < window; i++) items[count++] = (zmq_pollitem_t){pushes[i], 0, ZMQ_POLLOUT, 0};
            zmq_poll(items, count, 100);
        }
    }
}

/* -- TGP/1: as much msgpack as that needs */

static unsigned char packed[MOST_BYTES];
static size_t length;

static void byte(int value) { packed[length++] = (unsigned char)value; }

static void begin(int fields, int command) {
    length = 0;
    byte(0x90 + fields);
    byte(command);
}

static void number(uint64_t value) {
    if (value < 128) {
        byte((int)value);
        return;
    }
    int bytes = value < 256 ? 1 : value < 65536 ? 2 : value < 4294967296 ? 4 : 8;
    byte(bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : bytes == 4 ? 0xce : 0xcf);
    while (bytes--) byte((int)(value >> (8 * bytes)));
}

static void word(const char *value) {
    byte(0xa0 + (int)strlen(value));
    while (*value) byte(*value++);
}

static void props(void) {
    if (opt.persistent) {
        byte(0xc0);
    } else {
        byte(0x81);
        word("delivery_mode");
        byte(1);
    }
}

static uint64_t read_number(const unsigned char *at) {
    if (*at < 128) return *at;
    if (*at < 0xcc || *at > 0xcf) die("an answer that is not understood");
    uint64_t value = 0;
    for (int bytes = 1 << (*at - 0xcc), n = 1; n <= bytes; n++) value = value << 8 | at[n];
    return value;
}

static int say(void *socket, size_t size) {
    if (zmq_send(socket, packed, length, ZMQ_DONTWAIT | (size ? ZMQ_SNDMORE : 0)) < 0) return 0;
    if (size && zmq_send_const(socket, body, size, 0) < 0) die("half a message");
    return 1;
}

/* Say something and wait for the answer to it. */
static void ask(void *socket, int answer) {
    unsigned char told[1024];
    if (zmq_send(socket, packed, length, 0) < 0) die("nothing can be sent");
    int size = zmq_recv(socket, told, sizeof told, 0);
    if (size < 2) die("no answer");
    if (told[1] == answer) return;
    fputs("zmqflood: refused: ", stderr);
    for (int i = 0; i < size && i < (int)sizeof told; i++) fputc(told[i] < 32 || told[i] > 126 ? ' ' : told[i], stderr);
    die("");
}

static void *hello(void *context) {
    void *socket = peer(context, ZMQ_DEALER, opt.into);
    int patience = 10000;
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    if (opt.plain) return socket;
    begin(3, 1), number(1), number(1);
    ask(socket, 2);
    return socket;
}

static void consume(void *socket) {
    if (opt.plain) {
        zmq_send(socket, "C", 1, 0);
        return;
    }
    begin(4, 13), number(2), word("queue"), word("bench");
    ask(socket, 20);
    begin(opt.flood ? 6 : 5, 6), number(3), word("bench"), word("c"), number(opt.credit);
    if (opt.flood) byte(0x81), word("no_ack"), byte(0xc3);
    ask(socket, 20);
}

static void compose(uint64_t seq) {
    if (!opt.batch) {
        begin(6, 3), number(seq), word(""), word("bench"), props(), number(opt.flood ? 2 : 0);
        return;
    }
    begin(4, 25), number(seq), byte(0xdc), byte(opt.batch >> 8), byte(opt.batch & 255);
    for (int n = 0; n < opt.batch; n++) byte(0x94), number(opt.size), word(""), word("bench"), props();
    number(opt.flood ? 2 : 0);
}

/* Return the number in a DELIVER [8, "c", number ...], or what the gateway in C passes on. */
static uint64_t delivered(const unsigned char *header) {
    if (opt.plain) return 0;
    if (header[1] != 8) die("not a DELIVER");
    return read_number(header + 4);
}

static uint64_t confirmed(const unsigned char *header) {
    if (header[1] == 22) return 0;
    if (header[1] != 4) die("not a CONFIRM");
    return read_number(header + 2);
}

static void settle(void *socket, uint64_t number_, int multiple) {
    begin(4, 9), word("c"), number(number_), byte(multiple ? 0xc3 : 0xc2);
    if (!say(socket, 0)) die("no room for an ACK");
}

static void supply(void *socket, long count) {
    begin(3, 11), word("c"), number(count);
    if (!say(socket, 0)) die("no room for a CREDIT");
}

static void tgp(void) {
    void *context = zmq_ctx_new(), *consumer = hello(context), *publisher = hello(context);
    consume(consumer);
    if (opt.plain) zmq_poll(NULL, 0, 200);
    uint64_t sent = 0, sure = 0, got = 0, paid = 0;
    uint64_t window = opt.window ? opt.window : 1000, step = opt.batch ? opt.batch : 1;
    zmq_msg_t message;
    zmq_msg_init(&message);
    while (!over((long)(opt.flood || got < sure ? got : sure))) {
        uint64_t before = sent + got + sure, last = 0;
        while (sent - (opt.flood || got < sure ? got : sure) + step <= window) {
            compose(sent + 1);
            if (!say(publisher, step * opt.size)) break;
            sent += step;
        }
        for (int n = 0; n < TURN && zmq_msg_recv(&message, consumer, ZMQ_DONTWAIT) >= 0; n++) {
            const unsigned char *header = zmq_msg_data(&message);
            if (!opt.plain && header[1] == 22) continue;
            last = delivered(header);
            while (zmq_msg_more(&message)) zmq_msg_recv(&message, consumer, 0);
            got++;
            if (opt.each) settle(consumer, last, 0);
        }
        if (last && !opt.each && !opt.flood) settle(consumer, last, 1);
        if (opt.flood && !opt.plain && got - paid >= (uint64_t)opt.credit / 4) supply(consumer, got - paid), paid = got;
        for (int n = 0; n < TURN && zmq_msg_recv(&message, publisher, ZMQ_DONTWAIT) >= 0; n++) {
            uint64_t seq = confirmed(zmq_msg_data(&message));
            if (seq > sure) sure = seq;
        }
        if (sent + got + sure == before) {
            zmq_pollitem_t items[] = {{consumer, 0, ZMQ_POLLIN, 0}, {publisher, 0, ZMQ_POLLIN, 0}};
            zmq_poll(items, 2, 100);
        }
    }
}

/* -- gateways to compare with */

static void proxy(void) {
    void *context = zmq_ctx_new();
    zmq_proxy(home(context, ZMQ_PULL, opt.into), home(context, ZMQ_PUSH, opt.out), NULL);
}

/* Pass on what comes from anybody, all of its frames, to the one who last sent a single frame. */
static void loop(void) {
    void *context = zmq_ctx_new(), *socket = home(context, ZMQ_ROUTER, opt.into);
    char target[256];
    int known = 0, wait = 1;
    zmq_msg_t name, frame;
    zmq_msg_init(&name), zmq_msg_init(&frame);
    for (;;) {
        if (zmq_msg_recv(&name, socket, 0) < 0) die("the loop ended");
        zmq_msg_recv(&frame, socket, 0);
        if (!zmq_msg_more(&frame)) {
            known = (int)zmq_msg_size(&name);
            memcpy(target, zmq_msg_data(&name), known);
            continue;
        }
        zmq_send(socket, target, known, ZMQ_SNDMORE);
        do {
            wait = zmq_msg_more(&frame);
            zmq_msg_send(&frame, socket, wait ? ZMQ_SNDMORE : 0);
        } while (wait && zmq_msg_recv(&frame, socket, 0) >= 0);
    }
}

/* -- the command line */

static int is_set(const char *name, int *flag, const char *given) { return strcmp(name, given) == 0 ? *flag = 1 : 0; }

static void read_options(int count, char **words) {
    for (int i = 2; i < count; i++) {
        char *w = words[i];
        if (is_set("--flood", &opt.flood, w) || is_set("--each", &opt.each, w) || is_set("--persistent", &opt.persistent, w) ||
            is_set("--plain", &opt.plain, w))
            continue;
        if (i + 1 == count) die(w);
        char *value = words[++i];
        if (!strcmp(w, "--into")) opt.into = value;
        else if (!strcmp(w, "--out")) opt.out = value;
        else if (!strcmp(w, "--peers")) opt.peers = atoi(value);
        else if (!strcmp(w, "--frames")) opt.frames = atoi(value);
        else if (!strcmp(w, "--size")) opt.size = atoi(value);
        else if (!strcmp(w, "--window")) opt.window = atoi(value);
        else if (!strcmp(w, "--batch")) opt.batch = atoi(value);
        else if (!strcmp(w, "--credit")) opt.credit = atoi(value);
        else if (!strcmp(w, "--seconds")) opt.seconds = atof(value);
        else if (!strcmp(w, "--warm")) opt.warm = atof(value);
        else die(w);
    }
    if (opt.size * (opt.batch + 1) > MOST_BYTES || opt.batch * 30 > MOST_BYTES - 100) die("too large");
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"pipe", pipe_}, {"tgp", tgp}, {"proxy", proxy}, {"loop", loop}};
    read_options(count, words);
    memset(body, 'x', sizeof body);
    for (size_t i = 0; count > 1 && i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(words[1], modes[i].name)) continue;
        modes[i].run();
        _Exit(0); /* what still waits in sockets is of no use */
    }
    die("pipe, tgp, proxy or loop?");
}
