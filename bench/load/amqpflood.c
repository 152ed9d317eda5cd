/*
 * Load for an AMQP 0-9-1 broker: publishers and consumers in one thread, every message accounted for.
 *
 * Each body begins with when it was sent (ns), who sent it and its number, so that what is lost, comes twice or comes out of
 * order is counted, not estimated. Publishes for a given time; what the broker costs is read from the clocks of its processes
 * (--pid) at the moments between which messages are counted. Without --away consumers take while publishers publish, with at
 * most --lag messages under way; with it they come when publishing is over (with --fill: that many messages, however long it
 * takes), and drain the queues. A line of JSON for each phase.
 */
#define _GNU_SOURCE
#define LOAD "amqpflood"
#define SCRATCH (1 << 20)
#include "flood.h"

#include <getopt.h>

enum { STAMP = 20, CHUNK = 65536, RING = 1 << 17, MOST_PIDS = 64, FRAME_MAX = 131072, NAME = 48 };
enum kind { PUBLISHER, CONSUMER, CLERK };
enum {
    CONNECTION_START = 10 << 16 | 10, CONNECTION_START_OK, CONNECTION_TUNE = 10 << 16 | 30, CONNECTION_TUNE_OK,
    CONNECTION_OPEN = 10 << 16 | 40, CONNECTION_OPEN_OK, CONNECTION_CLOSE = 10 << 16 | 50, CHANNEL_OPEN = 20 << 16 | 10,
    CHANNEL_CLOSE = 20 << 16 | 40, EXCHANGE_DECLARE = 40 << 16 | 10, EXCHANGE_DELETE = 40 << 16 | 20,
    QUEUE_DECLARE = 50 << 16 | 10, QUEUE_DECLARE_OK, QUEUE_BIND = 50 << 16 | 20, QUEUE_DELETE = 50 << 16 | 40,
    BASIC_QOS = 60 << 16 | 10, BASIC_CONSUME = 60 << 16 | 20, BASIC_CANCEL = 60 << 16 | 30, BASIC_PUBLISH = 60 << 16 | 40,
    BASIC_DELIVER = 60 << 16 | 60, BASIC_ACK = 60 << 16 | 80, BASIC_NACK = 60 << 16 | 120, CONFIRM_SELECT = 85 << 16 | 10,
};

static int port = 5672, publishers = 1, consumers = 1, queues = 1;
static unsigned size = 100, prefetch = 1000;
static uint64_t window = 0, lag = 0, fill = 0;
static double seconds = 1.5, warm_s = 0.3, patience_s = 10;
static bool persistent = false, away = false, no_ack = false, multiple = false, fanout = false;
static const char *type = "classic";
static clockid_t clocks[MOST_PIDS];
static int clock_count;

struct bits { uint64_t *words; uint64_t room; };

struct peer {
    struct line line;
    enum kind kind;
    int number;
    bool answered;              /* QUEUE_DECLARE_OK has come */
    uint8_t *message;           /* publishers: one publish, with all its frames */
    size_t message_size, body_at;
    uint64_t sent, confirmed, all_below, *when;
    struct bits told;           /* publishers: which delivery tags were confirmed */
    uint64_t tag, left;         /* consumers: of the delivery that is coming in, its tag and how much of its body is missing */
    bool begun;
    uint64_t *next;             /* consumers: by publisher, the number that should come next */
};

static struct peer *all, clerk;
static struct bits **seen;      /* by queue and publisher, a bit per number */
static int many;
static uint64_t sent, confirmed, refused, delivered, doubled, disordered, strange, last_ns, run;
static struct times confirms;
static bool publishing, measuring;

static bool set(struct bits *b, uint64_t number)
{
    uint64_t word = number / 64, bit = 1ull << number % 64;
    if (word >= b->room) {
        uint64_t room = word * 2 + 1024;
        if (!(b->words = realloc(b->words, room * 8))) fail("memory");
        memset(b->words + b->room, 0, (room - b->room) * 8);
        b->room = room;
    }
    bool old = b->words[word] & bit;
    b->words[word] |= bit;
    return old;
}

/* -- bytes out ------------------------------------------------------------------------------------------------------------- */

static uint8_t *put(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) *at++ = (uint8_t)(value >> 8 * i);
    return at;
}

static uint64_t get(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    while (bytes--) value = value << 8 | *at++;
    return value;
}

static uint8_t *text(uint8_t *at, const char *s)
{
    size_t n = strlen(s);
    *at++ = (uint8_t)n;
    memcpy(at, s, n);
    return at + n;
}

static uint8_t *frame(uint8_t *at, uint8_t kind, int channel, const uint8_t *payload, size_t n)
{
    at = put(put(put(at, kind, 1), (uint64_t)channel, 2), n, 4);
    memcpy(at, payload, n);
    return put(at + n, 0xce, 1);
}

static void say(struct peer *p, uint32_t method, const uint8_t *arguments, size_t n)
{
    uint8_t payload[512];
    put(payload, method, 4);
    memcpy(payload + 4, arguments, n);
    frame(room(&p->line, n + 12), 1, method >> 16 != 10, payload, n + 4);
    flush(&p->line);
}

/* -- publishing ------------------------------------------------------------------------------------------------------------ */

static void queue_name(char *name, int queue) { snprintf(name, NAME, "flood-%08x-%d", (unsigned)run, queue); }

static void exchange_name(char *name) { if (fanout) snprintf(name, NAME, "flood-%08x", (unsigned)run); else *name = 0; }

static void write_message(struct peer *p)
{
    uint8_t payload[256], *at;
    char exchange[NAME], key[NAME];
    exchange_name(exchange);
    queue_name(key, p->number % queues);
    p->message = fresh(size + 512, 1);
    at = put(text(text(put(put(payload, BASIC_PUBLISH, 4), 0, 2), exchange), key), 0, 1);
    uint8_t *to = frame(p->message, 1, 1, payload, (size_t)(at - payload));
    at = put(put(put(put(payload, 60 << 16, 4), size, 8), 0x1000, 2), persistent ? 2 : 1, 1);
    to = frame(to, 2, 1, payload, (size_t)(at - payload));
    uint8_t *body = fresh(size, 1);
    memset(body, 'x', size);
    p->body_at = (size_t)(to - p->message) + 7;
    to = frame(to, 3, 1, body, size);
    p->message_size = (size_t)(to - p->message);
    free(body);
}

static bool may_send(const struct peer *p)
{
    uint64_t each = fanout ? (uint64_t)queues : 1;
    return publishing && (!fill || sent < fill) && (!window || p->sent - p->confirmed < window) && (!lag || sent * each < delivered + lag * each);
}

static void publish(struct peer *p)
{
    while (flush(&p->line) && may_send(p)) {
        uint64_t at = now();
        uint32_t who = (uint32_t)p->number;
        while (p->line.out_to - p->line.out_from < CHUNK && may_send(p)) {
            uint8_t *to = room(&p->line, p->message_size);
            memcpy(to, p->message, p->message_size);
            to += p->body_at;
            memcpy(to, &at, 8);
            memcpy(to + 8, &who, 4);
            memcpy(to + 12, &p->sent, 8);
            p->when[++p->sent % RING] = at;
            sent++;
        }
    }
}

static void confirm(struct peer *p, uint64_t tag)
{
    if (!tag || tag > p->sent || set(&p->told, tag)) { strange++; return; }
    p->confirmed++;
    confirmed++;
    if (measuring) note(&confirms, last_ns - p->when[tag % RING]);
}

static void take_confirm(struct peer *p, const uint8_t *arguments)
{
    uint64_t tag = get(arguments, 8);
    if (!(arguments[8] & 1)) { confirm(p, tag); return; }
    for (uint64_t one = p->all_below + 1; one <= tag; one++)
        if (one > p->sent || !(one / 64 < p->told.room && p->told.words[one / 64] >> one % 64 & 1)) confirm(p, one);
    p->all_below = tag;
}

/* -- consuming ------------------------------------------------------------------------------------------------------------- */

static void say_ack(struct peer *p, bool up_to)
{
    static const uint8_t head[11] = { 1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80 };
    uint8_t *at = room(&p->line, 21);
    memcpy(at, head, sizeof head);
    at = put(put(put(at + 11, p->tag, 8), up_to, 1), 0xce, 1);
}

static void take_stamp(struct peer *p, const uint8_t *body, size_t n)
{
    uint32_t who;
    uint64_t number;
    if (n < STAMP) { strange++; return; }
    memcpy(&who, body + 8, 4);
    memcpy(&number, body + 12, 8);
    if (who >= (uint32_t)publishers || number >= all[consumers + (int)who].sent) { strange++; return; }
    if (set(&seen[p->number % queues][who], number)) { doubled++; return; }
    if (number < p->next[who]) disordered++;
    else p->next[who] = number + 1;
    delivered++;
}

static void take_body(struct peer *p, const uint8_t *body, size_t n)
{
    if (!p->begun) take_stamp(p, body, n);
    p->begun = true;
    p->left -= n < p->left ? n : p->left;
    if (!p->left && !no_ack && !multiple) say_ack(p, false);
}

/* -- bytes in -------------------------------------------------------------------------------------------------------------- */

static void refuse(const uint8_t *arguments)
{
    give_up("the broker closed with %u: %.*s", (unsigned)get(arguments, 2), arguments[2], arguments + 3);
}

static void take_method(struct peer *p, uint32_t method, const uint8_t *arguments)
{
    switch (method) {
    case BASIC_DELIVER: p->tag = get(arguments + 1 + arguments[0], 8); break;
    case BASIC_ACK: take_confirm(p, arguments); break;
    case BASIC_NACK: refused++; take_confirm(p, arguments); break;
    case QUEUE_DECLARE_OK: p->answered = true; break;
    case BASIC_CONSUME + 1: case BASIC_QOS + 1: break;
    case CONNECTION_CLOSE: case CHANNEL_CLOSE: refuse(arguments); break;
    default: strange++;
    }
}

static size_t cut(struct peer *p, const uint8_t *data, size_t n)
{
    size_t at = 0;
    for (; n - at >= 8; ) {
        size_t payload = (size_t)get(data + at + 3, 4);
        const uint8_t *body = data + at + 7;
        if (n - at < payload + 8) break;
        if (body[payload] != 0xce) give_up("a frame without an end");
        switch (data[at]) {
        case 1: take_method(p, (uint32_t)get(body, 4), body + 4); break;
        case 2: p->left = get(body + 4, 8); p->begun = false; break;
        case 3: take_body(p, body, payload); break;
        case 8: break;
        default: strange++;
        }
        at += payload + 8;
    }
    return at;
}

static void receive(struct peer *p)
{
    size_t n = gather(&p->line);
    if (!n) return;
    uint64_t tag = p->tag;
    last_ns = now();
    keep(&p->line, cut(p, scratch, n), n);
    if (multiple && p->kind == CONSUMER && p->tag != tag && !p->left) say_ack(p, true);
    flush(&p->line);
}

static void turn(int wait_ms)
{
    struct epoll_event events[128];
    int n = epoll_wait(poller, events, 128, wait_ms);
    for (int i = 0; i < n; i++) {
        struct peer *p = events[i].data.ptr;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(p);
        if (events[i].events & EPOLLOUT) flush(&p->line);
    }
    for (int i = consumers; i < many; i++) publish(&all[i]);
}

/* -- beginning: one question at a time ------------------------------------------------------------------------------------- */

static void take_exactly(struct peer *p, uint8_t *to, size_t n)
{
    for (ssize_t got; n; to += got, n -= (size_t)got)
        if ((got = recv(p->line.fd, to, n, 0)) <= 0) fail("the broker closed a connection");
}

static size_t await(struct peer *p, uint32_t method, uint8_t *arguments)
{
    static uint8_t payload[FRAME_MAX];
    uint8_t head[7];
    do {
        take_exactly(p, head, 7);
        if (get(head + 3, 4) >= FRAME_MAX) fail("a frame that is too long");
        take_exactly(p, payload, get(head + 3, 4) + 1);
    } while (head[0] == 8);
    uint32_t told = (uint32_t)get(payload, 4);
    if (told == CONNECTION_CLOSE || told == CHANNEL_CLOSE) refuse(payload + 4);
    if (head[0] != 1 || told != method) give_up("%x came in place of %x", told, method);
    if (arguments) memcpy(arguments, payload + 4, 64);
    return get(head + 3, 4);
}

static void call(struct peer *p, uint32_t method, const uint8_t *arguments, const uint8_t *end)
{
    say(p, method, arguments, (size_t)(end - arguments));
    await(p, method + 1, NULL);
}

static void greet(struct peer *p)
{
    uint8_t a[128], *at;
    dial(&p->line, port);
    memcpy(room(&p->line, 8), "AMQP\0\0\x09\x01", 8);
    flush(&p->line);
    await(p, CONNECTION_START, NULL);
    at = text(put(a, 0, 4), "PLAIN");
    at = put(at, 12, 4);
    memcpy(at, "\0guest\0guest", 12);
    at = text(at + 12, "en_US");
    say(p, CONNECTION_START_OK, a, (size_t)(at - a));
    await(p, CONNECTION_TUNE, NULL);
    at = put(put(put(a, 2047, 2), FRAME_MAX, 4), 0, 2);
    say(p, CONNECTION_TUNE_OK, a, (size_t)(at - a));
    call(p, CONNECTION_OPEN, a, put(text(text(a, "/"), ""), 0, 1));
    call(p, CHANNEL_OPEN, a, text(a, ""));
}

static void declare(void)
{
    uint8_t a[256], *at, *table;
    char name[NAME], exchange[NAME];
    exchange_name(exchange);
    if (fanout) {
        at = put(put(text(text(put(a, 0, 2), exchange), "fanout"), 0, 1), 0, 4);
        call(&clerk, EXCHANGE_DECLARE, a, at);
    }
    for (int queue = 0; queue < queues; queue++) {
        queue_name(name, queue);
        at = put(text(put(a, 0, 2), name), persistent ? 2 : 0, 1);
        table = at;
        at = text(put(at, 0, 4), "x-queue-type");
        at = put(put(at, 'S', 1), strlen(type), 4);
        memcpy(at, type, strlen(type));
        at += strlen(type);
        put(table, (uint64_t)(at - table - 4), 4);
        call(&clerk, QUEUE_DECLARE, a, at);
        if (fanout) call(&clerk, QUEUE_BIND, a, put(put(text(text(text(put(a, 0, 2), name), exchange), ""), 0, 1), 0, 4));
    }
}

static void enter(struct peer *p)
{
    uint8_t a[128];
    char name[NAME];
    greet(p);
    if (p->kind == PUBLISHER) {
        write_message(p);
        if (window) call(p, CONFIRM_SELECT, a, put(a, 0, 1));
    } else if (!no_ack) {
        call(p, BASIC_QOS, a, put(put(put(a, 0, 4), prefetch, 2), 0, 1));
    }
    watch(&p->line);
    if (p->kind == CONSUMER) {
        queue_name(name, p->number % queues);
        uint8_t *at = put(put(text(text(put(a, 0, 2), name), ""), no_ack ? 2 : 0, 1), 0, 4);
        say(p, BASIC_CONSUME, a, (size_t)(at - a));
    }
}

static void make(void)
{
    many = publishers + consumers;
    all = fresh((size_t)many, sizeof *all);
    seen = fresh((size_t)queues, sizeof *seen);
    for (int i = 0; i < queues; i++) seen[i] = fresh((size_t)publishers, sizeof **seen);
    for (int i = 0; i < many; i++) {
        struct peer *p = &all[i];
        p->kind = i < consumers ? CONSUMER : PUBLISHER;
        p->number = i - (p->kind == CONSUMER ? 0 : consumers);
        if (p->kind == PUBLISHER) p->when = fresh(RING, 8);
        else p->next = fresh((size_t)publishers, 8);
    }
    clerk.kind = CLERK;
    greet(&clerk);
    declare();
}

/* -- the phases ------------------------------------------------------------------------------------------------------------ */

struct moment { uint64_t ns, broker_ns, own_ns, confirmed, delivered; };

static struct moment moment(void)
{
    struct moment m = { .own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID), .confirmed = confirmed, .delivered = delivered };
    for (int i = 0; i < clock_count; i++) m.broker_ns += clock_ns(clocks[i]);
    m.ns = now();
    return m;
}

static void tell(const char *phase, struct moment from, struct moment to, uint64_t count, double took_s)
{
    printf("{\"phase\": \"%s\", \"count\": %llu, \"seconds\": %.4f, \"cpu_s\": %.6f, \"busy\": %.3f, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           phase, (unsigned long long)count, took_s, (double)(to.broker_ns - from.broker_ns) / 1e9,
           (double)(to.own_ns - from.own_ns) / (double)(to.ns - from.ns), at_share(&confirms, 0.5), at_share(&confirms, 0.99));
}

static uint64_t expected(void) { return fanout ? sent * (uint64_t)queues : sent; }

static bool settled(void) { return (!window || confirmed == sent) && (away || delivered >= expected()); }

static bool filled(void) { return sent == fill && (!window || confirmed == sent); }

static bool drained(void) { return delivered >= expected(); }

static bool answered(void)
{
    for (int i = 0; i < consumers; i++) if (!all[i].answered) return false;
    return true;
}

static void until(bool (*done)(void))
{
    last_ns = now();
    while (!done() && now() - last_ns < (uint64_t)(patience_s * 1e9)) turn(20);
}

static void during(double s)
{
    uint64_t end = now() + (uint64_t)(s * 1e9);
    while (now() < end) turn(5);
}

static void ask_consumers(void)     /* the answer comes when what was acknowledged before has been taken */
{
    uint8_t a[128];
    char name[NAME];
    for (int i = 0; i < consumers; i++) {
        queue_name(name, all[i].number % queues);
        uint8_t *at = put(put(text(put(a, 0, 2), name), persistent ? 3 : 1, 1), 0, 4);
        all[i].answered = false;
        say(&all[i], QUEUE_DECLARE, a, (size_t)(at - a));
    }
    until(answered);
}

static void flood(void)
{
    for (int i = away ? consumers : 0; i < many; i++) enter(&all[i]);
    publishing = true;
    if (!fill) during(warm_s);
    struct moment from = moment();
    measuring = true;
    if (fill) until(filled);
    else during(seconds);
    struct moment to = moment();
    measuring = publishing = false;
    uint64_t count = away ? to.confirmed - from.confirmed : to.delivered - from.delivered;
    tell(away ? "publish" : "through", from, to, count, (double)(to.ns - from.ns) / 1e9);
    until(settled);
}

static void drain(void)
{
    struct moment from = moment();
    for (int i = 0; i < consumers; i++) enter(&all[i]);
    until(drained);
    ask_consumers();
    double took_s = (double)(now() - from.ns) / 1e9;
    during(0.1);    /* what was put off is done now */
    tell("drain", from, moment(), delivered, took_s);
}

static uint64_t clear(void)
{
    uint8_t a[128], told[64];
    char name[NAME];
    uint64_t left = 0;
    for (int i = 0; i < many; i++) close(all[i].line.fd);
    for (int queue = 0; queue < queues; queue++) {
        queue_name(name, queue);
        uint8_t *at = put(text(put(a, 0, 2), name), 0, 1);
        say(&clerk, QUEUE_DELETE, a, (size_t)(at - a));
        await(&clerk, QUEUE_DELETE + 1, told);
        left += get(told, 4);
    }
    exchange_name(name);
    if (fanout) call(&clerk, EXCHANGE_DELETE, a, put(text(put(a, 0, 2), name), 0, 1));
    return left;
}

static void work(void)
{
    make();
    flood();
    if (away) drain();
    else ask_consumers();
    during(0.05);
    uint64_t left = clear();
    printf("{\"phase\": \"whole\", \"sent\": %llu, \"confirmed\": %llu, \"refused\": %llu, \"delivered\": %llu, \"lost\": %lld, "
           "\"doubled\": %llu, \"disordered\": %llu, \"strange\": %llu, \"left\": %llu}\n",
           (unsigned long long)sent, (unsigned long long)confirmed, (unsigned long long)refused, (unsigned long long)delivered,
           (long long)(expected() - delivered), (unsigned long long)doubled, (unsigned long long)disordered,
           (unsigned long long)strange, (unsigned long long)left);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "port", 1, 0, 'p' }, { "publishers", 1, 0, 'P' }, { "consumers", 1, 0, 'C' }, { "queues", 1, 0, 'Q' }, { "size", 1, 0, 's' },
        { "window", 1, 0, 'w' }, { "lag", 1, 0, 'l' }, { "fill", 1, 0, 'F' }, { "prefetch", 1, 0, 'f' }, { "seconds", 1, 0, 't' }, { "warm", 1, 0, 'W' },
        { "patience", 1, 0, 'i' }, { "type", 1, 0, 'y' }, { "pid", 1, 0, 'k' }, { "persistent", 0, 0, 'd' }, { "away", 0, 0, 'a' },
        { "no-ack", 0, 0, 'n' }, { "multiple", 0, 0, 'm' }, { "fanout", 0, 0, 'x' }, { 0 },
    };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'P': publishers = atoi(optarg); break;
        case 'C': consumers = atoi(optarg); break;
        case 'Q': queues = atoi(optarg); break;
        case 's': size = (unsigned)atoi(optarg); break;
        case 'w': window = (uint64_t)atoll(optarg); break;
        case 'l': lag = (uint64_t)atoll(optarg); break;
        case 'F': fill = (uint64_t)atoll(optarg); break;
        case 'f': prefetch = (unsigned)atoi(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'W': warm_s = atof(optarg); break;
        case 'i': patience_s = atof(optarg); break;
        case 'y': type = optarg; break;
        case 'k':
            if (clock_count < MOST_PIDS && !clock_getcpuclockid(atoi(optarg), &clocks[clock_count])) clock_count++;
            break;
        case 'd': persistent = true; break;
        case 'a': away = true; break;
        case 'n': no_ack = true; break;
        case 'm': multiple = true; break;
        case 'x': fanout = true; break;
        default: return 2;
        }
    if (size < STAMP || size > FRAME_MAX - 8 || publishers < 1 || consumers < queues || queues < 1 || (away && !window)) {
        fprintf(stderr, "amqpflood: options that can't be\n");
        return 2;
    }
    run = now() / 1000 ^ (uint64_t)getpid() << 20;
    if ((poller = epoll_create1(0)) < 0) fail("epoll");
    work();
    return 0;
}
