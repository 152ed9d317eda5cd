/*
 * What the loads over plain TCP share: clocks, times in buckets, and connections that neither wait nor lose a byte.
 *
 * Before it is included: LOAD, the program's name in what it complains of, and SCRATCH, the most bytes that are looked at at once.
 * A `struct line` is the first member of whatever has a connection, so that what epoll hands back points to both.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 4096 };

static void fail(const char *what) { fprintf(stderr, LOAD ": %s: %s\n", what, strerror(errno)); exit(1); }

__attribute__((format(printf, 1, 2), noreturn)) static void give_up(const char *why, ...)
{
    va_list values;
    va_start(values, why);
    fputs(LOAD ": ", stderr);
    vfprintf(stderr, why, values);
    fputc('\n', stderr);
    exit(1);
}

static void *fresh(size_t n, size_t each)
{
    void *p = calloc(n ? n : 1, each);
    if (!p) fail("memory");
    return p;
}

/* -- times: 64 buckets per doubling, from 1 us on ------------------------------------------------------------------------- */

struct times { uint64_t count, buckets[BUCKETS]; };

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t)) return 0;    /* a process that has ended: its time is missing from both ends */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }

static void note(struct times *t, uint64_t ns)
{
    uint64_t us64 = ns * 64 / 1000;
    unsigned at = 0;
    if (us64 >= 64) {
        unsigned log = 63u - (unsigned)__builtin_clzll(us64);
        at = (log - 6) * 64 + (unsigned)((us64 >> (log - 6)) & 63) + 1;
    }
    t->buckets[at < BUCKETS ? at : BUCKETS - 1]++;
    t->count++;
}

static double at_share(const struct times *t, double share)
{
    uint64_t left = (uint64_t)((double)t->count * share);
    for (unsigned at = 0; at < BUCKETS; at++) {
        if (t->buckets[at] > left) {
            if (!at) return 1;
            unsigned log = (at - 1) / 64, part = (at - 1) % 64;
            return (double)(1u << log) * (1 + part / 64.0);
        }
        left -= t->buckets[at];
    }
    return 0;
}

/* -- connections ----------------------------------------------------------------------------------------------------------- */

struct line {
    int fd;
    bool waits;     /* more is to be sent than the socket takes */
    uint8_t *out, *in;
    size_t out_size, out_from, out_to, in_size, in_count;
};

static int poller;
static uint8_t scratch[SCRATCH];

static void dial(struct line *l, int port)
{
    struct sockaddr_in where = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;
    if ((l->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0) fail("socket");
    if (connect(l->fd, (struct sockaddr *)&where, sizeof where)) fail("connect");
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void watch(struct line *l)
{
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = l };
    fcntl(l->fd, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, l->fd, &e)) fail("epoll");
}

static void listen_for(struct line *l, bool write)
{
    struct epoll_event e = { .events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = l };
    if (l->waits != write && epoll_ctl(poller, EPOLL_CTL_MOD, l->fd, &e)) fail("epoll");
    l->waits = write;
}

/* Return where the next n bytes that go out are to be written. */
static uint8_t *room(struct line *l, size_t n)
{
    if (l->out_from == l->out_to) l->out_from = l->out_to = 0;
    if (l->out_to + n > l->out_size) {
        l->out_size = (l->out_to + n) * 2;
        if (!(l->out = realloc(l->out, l->out_size))) fail("memory");
    }
    l->out_to += n;
    return l->out + l->out_to - n;
}

/* Send; say whether all is gone. */
static bool flush(struct line *l)
{
    while (l->out_from < l->out_to) {
        ssize_t n = send(l->fd, l->out + l->out_from, l->out_to - l->out_from, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) { listen_for(l, true); return false; }
        if (n < 0) fail("send");
        l->out_from += (size_t)n;
    }
    if (l->waits) listen_for(l, false);
    return true;
}

/* Return how many bytes are in scratch: what was kept, and behind it what has come; 0: nothing has. */
static size_t gather(struct line *l)
{
    memcpy(scratch, l->in, l->in_count);
    ssize_t got = recv(l->fd, scratch + l->in_count, sizeof scratch - l->in_count, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) give_up("the broker closed a connection");
    return l->in_count + (size_t)got;
}

/* Keep what is behind the first `used` of the n bytes in scratch. */
static void keep(struct line *l, size_t used, size_t n)
{
    l->in_count = n - used;
    if (l->in_count > l->in_size) {
        l->in_size = l->in_count * 2;
        if (!(l->in = realloc(l->in, l->in_size))) fail("memory");
    }
    memcpy(l->in, scratch + used, l->in_count);
}
