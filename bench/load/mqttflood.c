/*
 * Load for an MQTT broker: publishers and subscribers in one thread, every message accounted for.
 *
 * Each payload begins with when it was due (ns), who sent it and its number, so that what is lost, comes twice or comes out of
 * order is counted, not estimated. Prints one line of JSON. Sent by the clock (--rate), a message's time is when it was due:
 * a broker that pushes back can't hide its delay.
 */
#define _GNU_SOURCE
#define LOAD "mqttflood"
#define SCRATCH (1 << 18)
#include "flood.h"

#include <getopt.h>
#include <sys/timerfd.h>

enum { HEADER = 16, CHUNK = 65536, LONGEST_TOPIC = 64 };
enum kind { PUBLISHER, SUBSCRIBER, IDLER };

static int port = 1883, level = 4, qos = 0, publishers = 1, subscribers = 1, topics = 1, idle = 0;
static unsigned size = 64, window = 100;
static uint64_t count = 10000;
static double rate = 0, hold_s = 3, patience_s = 10;
static bool wildcard = false, persistent = false, away = false;

struct peer {
    struct line line;
    enum kind kind;
    int number;
    bool ready;             /* CONNACK (and SUBACK) have come */
    uint64_t sent, confirmed;
    uint64_t *due;          /* publishers: by packet identifier, when it was due */
    uint64_t *next;         /* subscribers: by publisher, the number that should come next */
    uint64_t **seen;        /* subscribers: by publisher, a bit per number */
};

static struct peer *all;
static int many, timer, ready;
static uint64_t delivered, doubled, disordered, expected, confirmed, sent, last_ns, bad;
static struct times latency, confirms;
static bool publishing;
static uint64_t began_ns;

/* -- bytes out ------------------------------------------------------------------------------------------------------------- */

static uint8_t *text(uint8_t *at, const char *s)
{
    size_t n = strlen(s);
    *at++ = (uint8_t)(n >> 8);
    *at++ = (uint8_t)n;
    memcpy(at, s, n);
    return at + n;
}

static unsigned length_bytes(size_t n) { return n < 128 ? 1 : n < 16384 ? 2 : n < 2097152 ? 3 : 4; }

static uint8_t *length(uint8_t *at, size_t n)
{
    for (; n > 127; n >>= 7) *at++ = (uint8_t)(n & 127) | 128;
    *at++ = (uint8_t)n;
    return at;
}

static void packet(struct peer *p, uint8_t first, const uint8_t *body, size_t n)
{
    uint8_t *at = room(&p->line, 1 + length_bytes(n) + n);
    *at++ = first;
    memcpy(length(at, n), body, n);
}

static void say_connect(struct peer *p)
{
    uint8_t body[160], *at = text(body, "MQTT");
    char name[40];
    bool lasts = persistent && p->kind == SUBSCRIBER;
    *at++ = (uint8_t)level;
    *at++ = lasts ? 0 : 2;
    *at++ = 0;
    *at++ = 0;
    if (level == 5) {
        *at++ = lasts ? 5 : 0;
        if (lasts) { memcpy(at, "\x11\0\0\xff\xff", 5); at += 5; }
    }
    snprintf(name, sizeof name, "%s%06d", p->kind == PUBLISHER ? "flood-pub" : p->kind == SUBSCRIBER ? "flood-sub" : "idle", p->number);
    at = text(at, name);
    packet(p, 0x10, body, (size_t)(at - body));
    flush(&p->line);
}

static void say_subscribe(struct peer *p)
{
    uint8_t body[LONGEST_TOPIC + 16] = { 0, 1 }, *at = body + 2;
    char topic[LONGEST_TOPIC];
    if (level == 5) *at++ = 0;
    snprintf(topic, sizeof topic, wildcard ? "flood/#" : "flood/%04d/value", p->number % topics);
    at = text(at, topic);
    *at++ = (uint8_t)qos;
    packet(p, 0x82, body, (size_t)(at - body));
    flush(&p->line);
}

/* -- publishing ------------------------------------------------------------------------------------------------------------ */

static uint64_t due(const struct peer *p)
{
    return rate > 0 ? began_ns + (uint64_t)(((double)p->sent * publishers + p->number) / rate * 1e9) : 0;
}

static bool may_send(const struct peer *p, uint64_t at)
{
    return p->sent < count && (!qos || p->sent - p->confirmed < window) && (rate <= 0 || due(p) <= at);
}

static void say_publish(struct peer *p, uint64_t at)
{
    char topic[LONGEST_TOPIC];
    int n = snprintf(topic, sizeof topic, "flood/%04d/value", p->number % topics);
    size_t body = 2 + (size_t)n + (qos ? 2 : 0) + (level == 5) + size;
    uint8_t *to = room(&p->line, 1 + length_bytes(body) + body);
    uint64_t when = rate > 0 ? due(p) : at;
    uint32_t who = (uint32_t)p->number, number = (uint32_t)p->sent;
    *to++ = (uint8_t)(0x30 | qos << 1);
    to = text(length(to, body), topic);
    if (qos) {
        unsigned id = (unsigned)(p->sent % 65535) + 1;
        *to++ = (uint8_t)(id >> 8);
        *to++ = (uint8_t)id;
        p->due[id] = when;
    }
    if (level == 5) *to++ = 0;
    memcpy(to, &when, 8);
    memcpy(to + 8, &who, 4);
    memcpy(to + 12, &number, 4);
    memset(to + HEADER, 'x', size - HEADER);
    p->sent++;
    sent++;
}

static void publish(struct peer *p)
{
    while (publishing && flush(&p->line)) {
        uint64_t at = now();
        if (!may_send(p, at)) return;
        while (p->line.out_to - p->line.out_from < CHUNK && may_send(p, at)) say_publish(p, at);
    }
}

/* -- bytes in -------------------------------------------------------------------------------------------------------------- */

static void take(struct peer *p, const uint8_t *body, size_t n, int level_qos)
{
    size_t at = 2u + (size_t)(body[0] << 8 | body[1]);
    if (level_qos) {
        uint8_t *ack = room(&p->line, 4);
        ack[0] = 0x40;
        ack[1] = 2;
        memcpy(ack + 2, body + at, 2);
        at += 2;
    }
    if (level == 5) at += 1u + body[at];
    uint64_t when;
    uint32_t who, number;
    if (n < at + HEADER) { bad++; return; }
    memcpy(&when, body + at, 8);
    memcpy(&who, body + at + 8, 4);
    memcpy(&number, body + at + 12, 4);
    if (who >= (uint32_t)publishers || number >= count) { bad++; return; }
    uint64_t *word = &p->seen[who][number / 64], bit = 1ull << number % 64;
    last_ns = now();
    if (*word & bit) { doubled++; return; }
    *word |= bit;
    if (number < p->next[who]) disordered++;
    else p->next[who] = number + 1;
    delivered++;
    note(&latency, now() - when);
}

static void handle(struct peer *p, uint8_t first, const uint8_t *body, size_t n)
{
    switch (first >> 4) {
    case 2:
        if (n < 2 || body[1]) give_up("CONNACK refused with %d", n > 1 ? body[1] : -1);
        if (p->kind == SUBSCRIBER) say_subscribe(p);
        else { p->ready = true; ready++; }
        break;
    case 9:
        if (body[n - 1] > 2) give_up("SUBACK refused");
        p->ready = true;
        ready++;
        break;
    case 3: take(p, body, n, first >> 1 & 3); break;
    case 4:
        p->confirmed++;
        confirmed++;
        note(&confirms, now() - p->due[body[0] << 8 | body[1]]);
        last_ns = now();
        break;
    case 13: break;
    default: bad++;
    }
}

static size_t cut(struct peer *p, const uint8_t *data, size_t n)
{
    size_t at = 0;
    while (n - at >= 2) {
        size_t body = 0, start = at + 1;
        unsigned shift = 0;
        while (start < n) {
            uint8_t digit = data[start++];
            body |= (size_t)(digit & 127) << shift;
            shift += 7;
            if (digit < 128) { shift = 99; break; }
        }
        if (shift != 99 || start + body > n) break;
        handle(p, data[at], data + start, body);
        at = start + body;
    }
    return at;
}

static void receive(struct peer *p)
{
    size_t n = gather(&p->line);
    if (!n) return;
    keep(&p->line, cut(p, scratch, n), n);
    if (p->kind == PUBLISHER) publish(p);
    else flush(&p->line);
}

/* -- the loop -------------------------------------------------------------------------------------------------------------- */

static void turn(int wait_ms)
{
    struct epoll_event events[256];
    int n = epoll_wait(poller, events, 256, wait_ms);
    for (int i = 0; i < n; i++) {
        struct peer *p = events[i].data.ptr;
        if (!p) {
            uint64_t ticks;
            if (read(timer, &ticks, 8) < 0 && errno != EAGAIN) fail("timer");
            for (int k = 0; k < many; k++) if (all[k].kind == PUBLISHER && all[k].line.fd >= 0) publish(&all[k]);
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(p);
        if (p->line.fd >= 0 && events[i].events & EPOLLOUT && flush(&p->line) && p->kind == PUBLISHER) publish(p);
    }
}

static void start(struct peer *p)
{
    dial(&p->line, port);
    watch(&p->line);
    p->line.waits = p->ready = false;
    p->line.in_count = p->line.out_from = p->line.out_to = 0;
    say_connect(p);
}

static void stop(struct peer *p)
{
    uint8_t *bye = room(&p->line, 2);
    bye[0] = 0xe0;
    bye[1] = 0;
    flush(&p->line);
    close(p->line.fd);
    p->line.fd = -1;
    ready--;
}

static void enter(enum kind kind, int from, int to)
{
    for (int i = from, opened = 0; i < to; i++) {
        if (all[i].kind != kind) continue;
        start(&all[i]);
        if (++opened % 100 == 0 || i + 1 == to) {
            int wanted = ready;
            for (int k = 0; k <= i; k++) wanted += all[k].line.fd >= 0 && !all[k].ready;
            uint64_t until = now() + (uint64_t)(patience_s * 1e9);
            while (ready < wanted && now() < until) turn(10);
            if (ready < wanted) give_up("not everybody was let in");
        }
    }
    uint64_t until = now() + (uint64_t)(patience_s * 1e9);
    for (int i = from; i < to; i++) while (all[i].kind == kind && !all[i].ready && now() < until) turn(10);
}

static bool settled(void)
{
    bool all_sent = sent == count * (uint64_t)publishers && (!qos || confirmed == sent);
    return all_sent && (away || delivered >= expected);
}

static void work(bool (*done)(void))
{
    last_ns = now();
    while (!done() && now() - last_ns < (uint64_t)(patience_s * 1e9)) turn(50);
}

static bool drained(void) { return delivered >= expected; }

static void make(void)
{
    many = publishers + subscribers + idle;
    all = fresh((size_t)many, sizeof *all);
    for (int i = 0; i < many; i++) {
        struct peer *p = &all[i];
        p->line.fd = -1;
        p->kind = i < subscribers ? SUBSCRIBER : i < subscribers + publishers ? PUBLISHER : IDLER;
        p->number = i - (p->kind == SUBSCRIBER ? 0 : p->kind == PUBLISHER ? subscribers : subscribers + publishers);
        if (p->kind == PUBLISHER) p->due = fresh(65536, 8);
        if (p->kind != SUBSCRIBER) continue;
        p->next = fresh((size_t)publishers, 8);
        p->seen = fresh((size_t)publishers, sizeof *p->seen);
        for (int k = 0; k < publishers; k++) {
            p->seen[k] = fresh(count / 64 + 1, 8);
            if (wildcard || k % topics == p->number % topics) expected += count;
        }
    }
}

static void rest_idle(void)
{
    uint64_t from = now();
    enter(IDLER, 0, many);
    double seconds = (double)(now() - from) / 1e9;
    printf("{\"connections\": %d, \"connects_per_s\": %.0f}\n", ready, ready / seconds);
    fflush(stdout);
    uint64_t until = now() + (uint64_t)(hold_s * 1e9);
    while (now() < until) turn(50);
}

static void flood(void)
{
    enter(SUBSCRIBER, 0, many);
    if (away) for (int i = 0; i < subscribers; i++) stop(&all[i]);
    enter(PUBLISHER, 0, many);
    if (rate > 0) {
        struct itimerspec every = { .it_interval.tv_nsec = 200000, .it_value.tv_nsec = 200000 };
        struct epoll_event e = { .events = EPOLLIN };
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        if (timer < 0 || timerfd_settime(timer, 0, &every, NULL) || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &e)) fail("timer");
    }
    publishing = true;
    began_ns = now();
    for (int i = 0; i < many; i++) if (all[i].kind == PUBLISHER) publish(&all[i]);
    work(settled);
    double seconds = (double)(last_ns - began_ns) / 1e9, drain_s = 0;
    if (away) {
        uint64_t from = now();
        enter(SUBSCRIBER, 0, many);
        work(drained);
        drain_s = (double)(last_ns - from) / 1e9;
    }
    printf("{\"sent\": %llu, \"confirmed\": %llu, \"delivered\": %llu, \"expected\": %llu, \"lost\": %lld, \"doubled\": %llu, "
           "\"disordered\": %llu, \"strange\": %llu, \"seconds\": %.4f, \"drain_seconds\": %.4f, \"latency_p50_us\": %.1f, "
           "\"latency_p99_us\": %.1f, \"confirm_p50_us\": %.1f, \"confirm_p99_us\": %.1f, \"own_cpu_s\": %.3f}\n",
           (unsigned long long)sent, (unsigned long long)confirmed, (unsigned long long)delivered, (unsigned long long)expected,
           (long long)(expected - delivered), (unsigned long long)doubled, (unsigned long long)disordered, (unsigned long long)bad,
           seconds, drain_s, at_share(&latency, 0.5), at_share(&latency, 0.99),
           at_share(&confirms, 0.5), at_share(&confirms, 0.99),
           (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "port", 1, 0, 'p' }, { "level", 1, 0, 'V' }, { "qos", 1, 0, 'q' }, { "publishers", 1, 0, 'P' }, { "subscribers", 1, 0, 'S' },
        { "topics", 1, 0, 'T' }, { "size", 1, 0, 's' }, { "count", 1, 0, 'n' }, { "window", 1, 0, 'w' }, { "rate", 1, 0, 'r' },
        { "wildcard", 0, 0, 'W' }, { "persistent", 0, 0, 'c' }, { "away", 0, 0, 'a' }, { "idle", 1, 0, 'i' }, { "hold", 1, 0, 'h' },
        { "patience", 1, 0, 't' }, { 0 },
    };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'V': level = atoi(optarg); break;
        case 'q': qos = atoi(optarg); break;
        case 'P': publishers = atoi(optarg); break;
        case 'S': subscribers = atoi(optarg); break;
        case 'T': topics = atoi(optarg); break;
        case 's': size = (unsigned)atoi(optarg); break;
        case 'n': count = (uint64_t)atoll(optarg); break;
        case 'w': window = (unsigned)atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'W': wildcard = true; break;
        case 'c': persistent = true; break;
        case 'a': away = persistent = true; break;
        case 'i': idle = atoi(optarg); publishers = subscribers = 0; break;
        case 'h': hold_s = atof(optarg); break;
        case 't': patience_s = atof(optarg); break;
        default: return 2;
        }
    if (size < HEADER || window > 65534 || topics < 1 || (level != 4 && level != 5)) { fprintf(stderr, "mqttflood: options that can't be\n"); return 2; }
    if ((poller = epoll_create1(0)) < 0) fail("epoll");
    make();
    if (idle) rest_idle();
    else flood();
    return 0;
}
